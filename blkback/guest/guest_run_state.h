// GuestRunState: what became of the guest with a number, as a pure function of what Xen says of the
// domain: does it run, is it suspended, is it still the same one.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {

struct GuestRunState {
  bool runs = true;  // or may still come back as it is
  // Goes on here later, or elsewhere (migration, save). A guest that ends while it is suspended has
  // perhaps gone on elsewhere, and stays so for its disks: nothing of it is tried again, and its
  // lost writes are fenced.
  bool suspended = false;
  // Counts the guests that have had the number, one after the other.
  std::uint32_t incarnation = 0;
  // It runs on as another kernel (kexec, Xen's soft reset) when the toolstack has taken its devices
  // away and made them anew.
  bool resets = false;

  bool operator==(const GuestRunState&) const = default;
};

// What is known after status, where life and before (nothing: it has not been asked yet) were
// known. maps_pages: pages of the guest's have been mapped here all the time.
//
// Xen uses numbers again. Another guest has it when it runs after the one before had ended, and
// also when that was not seen: the UUID is another (a guest that is restored keeps its own), or a
// second less of processor time has been consumed than before, which no domain can. But Xen keeps
// the number of a domain while pages of it are mapped, so that one whose ring is served is the same
// whatever its UUID, which some toolstacks change.
[[nodiscard]] GuestRunState life_after(const GuestRunState& life,
                                       const std::optional<DomainStatus>& before,
                                       const DomainStatus& status, bool maps_pages);

// A number for the toolstack's UUID, which two guests share only by chance; 0: not known.
[[nodiscard]] std::uint64_t vm_of(const DomainHandle& handle);

// The same from xenstore, where Xen may not be asked (driver domains): it knows neither of a
// suspend nor of the processor time, and the UUID only where it may be read. The errors are
// xenstore's.
[[nodiscard]] Result<DomainStatus> status_in_xenstore(XenStoreAccess& store, DomainId guest);

// Whether xenstore has the guest's own folder; one that may not be read is there. The errors are xenstore's.
[[nodiscard]] Result<bool> xenstore_has_guest(XenStoreAccess& store, DomainId guest);

}  // namespace iscsi_blkback
