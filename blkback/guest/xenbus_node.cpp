#include "blkback/guest/xenbus_node.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/base64.h"
#include "base/decimal.h"
#include "base/printable_text.h"
#include "blkback/guest/emulated_drive.h"
#include "initiator/scsi/vpd_writer.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxPathBytes = 512;
constexpr std::size_t kMaxNumberBytes = 10;
constexpr std::size_t kMaxTextBytes = 900;
static_assert(base64_length(kMaxWrittenPageBytes) <= kMaxTextBytes);
constexpr std::uint32_t kInfoCdrom = 1;  // VDISK_CDROM and the next two: blkif.h
constexpr std::uint32_t kInfoRemovable = 2;
constexpr std::uint32_t kInfoReadOnly = 4;
constexpr const char* kDevicePathKey = "physical-device-path";

// The door to xenstore: what is written there is read by the guest, by xl and by other programs of
// the host, and may have come from a target.
Result<void> write_text(XenStoreAccess& store, const std::string& path, std::string_view text) {
  return store.write(path, printable_text(text, kMaxTextBytes));
}

Result<void> remove_text(XenStoreAccess& store, const std::string& path) {
  auto removed = store.remove(path);
  return removed || removed.error().code == ErrorCode::not_found ? Result<void>() : removed;
}

// A key that may be missing; errors other than that go up.
Result<std::string> read_or(XenStoreAccess& store, const std::string& path,
                            std::string_view otherwise) {
  auto value = store.read(path);
  if (!value && value.error().code == ErrorCode::not_found) {
    return std::string(otherwise);
  }
  return value;
}

Result<XenbusState> read_state(XenStoreAccess& store, const std::string& path) {
  auto text = read_or(store, path, "");
  if (!text) {
    return tl::unexpected(text.error());
  }
  return parse_xenbus_state(*text);
}

// A frontend may align the disk to it, and what is behind the last whole one would be lost.
std::uint64_t physical_sector_bytes(const Geometry& geometry) {
  const std::uint64_t least = std::max(geometry.logical_block_bytes, kSectorBytes);
  const std::uint64_t physical = geometry.physical_block_bytes;
  const std::uint64_t disk_bytes = geometry.sector_count * kSectorBytes;
  return physical > least && physical % least == 0 && disk_bytes % physical == 0 ? physical : least;
}

// A key of the guest's: a decimal number; nullopt: it has not written it. The text itself is not
// repeated: it may be anything.
Result<std::optional<std::uint32_t>> read_optional_number(XenStoreAccess& store,
                                                          const std::string& directory,
                                                          const std::string& key) {
  const auto text = store.read(directory + "/" + key);
  if (!text && text.error().code == ErrorCode::not_found) {
    return std::nullopt;
  }
  if (!text) {
    return tl::unexpected(text.error());
  }
  const auto number = parse_decimal<std::uint32_t>(*text);
  if (!number || text->size() > kMaxNumberBytes) {
    return fail(ErrorCode::invalid_argument, fmt::format("the frontend's {} is not a number", key));
  }
  return *number;
}

Result<std::uint32_t> read_number(XenStoreAccess& store, const std::string& directory,
                                  const std::string& key) {
  const auto number = read_optional_number(store, directory, key);
  if (!number) {
    return tl::unexpected(number.error());
  }
  if (!*number) {
    return fail(ErrorCode::invalid_argument, fmt::format("the frontend has not written {}", key));
  }
  return **number;
}

Result<BlkifAbi> read_abi(XenStoreAccess& store, const std::string& directory) {
  auto text = read_or(store, directory + "/protocol", "");
  if (!text) {
    return tl::unexpected(text.error());
  }
  if (*text == "x86_64-abi") {
    return BlkifAbi::x86_64;
  }
  if (*text == "x86_32-abi" || text->empty()) {
    return BlkifAbi::x86_32;
  }
  if (*text == "native") {
    return BlkifAbi::native;
  }
  return fail(ErrorCode::invalid_argument, "the frontend's protocol is unknown");
}

// prefix: of the queue's keys, "queue-1/"; empty: the disk has one queue.
Result<FrontendQueue> read_queue(XenStoreAccess& store, const std::string& directory,
                                 const std::string& prefix, std::optional<std::uint32_t> order) {
  FrontendQueue queue;
  const std::uint32_t pages = std::uint32_t{1} << order.value_or(0);
  for (std::uint32_t page = 0; page < pages; ++page) {
    // With an order of 0 frontends differ in which of the two names they write.
    const std::string key =
        prefix + (order ? fmt::format("ring-ref{}", page) : std::string("ring-ref"));
    auto reference = read_number(store, directory, key);
    if (!reference && order && pages == 1) {
      reference = read_number(store, directory, prefix + "ring-ref");
    }
    if (!reference) {
      return tl::unexpected(reference.error());
    }
    queue.references.push_back(*reference);
  }
  auto port = read_number(store, directory, prefix + "event-channel");
  if (!port) {
    return tl::unexpected(port.error());
  }
  if (*port == 0) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("the frontend's {}event-channel is 0", prefix));
  }
  queue.event_channel = *port;
  return queue;
}

Result<std::optional<std::uint32_t>> read_bounded(XenStoreAccess& store,
                                                  const std::string& directory,
                                                  const std::string& key, std::uint32_t most) {
  auto number = read_optional_number(store, directory, key);
  if (number && *number && **number > most) {
    return fail(
        ErrorCode::invalid_argument,
        fmt::format("the frontend's {} is {}, at most {} was offered", key, **number, most));
  }
  return number;
}

// A page or a port that is in two queues is no way to a working disk.
Result<void> check_apart(const FrontendQueue& queue, const std::vector<FrontendQueue>& others) {
  for (std::size_t i = 0; i < others.size(); ++i) {
    const auto shared = [&](GrantReference reference) {
      return std::find(others[i].references.begin(), others[i].references.end(), reference) !=
             others[i].references.end();
    };
    const bool same_port = others[i].event_channel == queue.event_channel;
    if (same_port || std::any_of(queue.references.begin(), queue.references.end(), shared)) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("the frontend's queues {} and {} have the same {}", i, others.size(),
                              same_port ? "event-channel" : "ring page"));
    }
  }
  return {};
}

Result<FrontendRing> read_frontend_ring(XenStoreAccess& store, const std::string& directory,
                                        const RingOffer& offer) {
  FrontendRing ring;
  auto order = read_bounded(store, directory, "ring-page-order", offer.max_page_order);
  if (!order) {
    return tl::unexpected(order.error());
  }
  constexpr const char* kQueues = "multi-queue-num-queues";
  auto said = read_bounded(store, directory, kQueues, offer.max_queues);
  if (!said) {
    return tl::unexpected(said.error());
  }
  const std::uint32_t count = said->value_or(1);
  if (count == 0) {
    return fail(ErrorCode::invalid_argument, fmt::format("the frontend's {} is 0", kQueues));
  }
  for (std::uint32_t index = 0; index < count; ++index) {
    const std::string prefix = count == 1 ? std::string() : fmt::format("queue-{}/", index);
    auto queue = read_queue(store, directory, prefix, *order);
    if (!queue) {
      return tl::unexpected(queue.error());
    }
    if (auto apart = check_apart(*queue, ring.queues); !apart) {
      return tl::unexpected(apart.error());
    }
    ring.queues.push_back(std::move(*queue));
  }
  auto abi = read_abi(store, directory);
  if (!abi) {
    return tl::unexpected(abi.error());
  }
  ring.abi = *abi;
  ring.max_indirect_segments = offer.max_indirect_segments;
  ring.discards = offer.discards;
  ring.max_buffers_mb = offer.max_buffers_mb;
  return ring;
}

}  // namespace

const char* to_string(BackendKind kind) {
  switch (kind) {
    case BackendKind::qdisk:
      return "qdisk";
    case BackendKind::vbd3:
      return "vbd3";
  }
  return "qdisk";
}

std::string backend_kind_path(DomainId own_domain, BackendKind kind) {
  return fmt::format("/local/domain/{}/backend/{}", own_domain, to_string(kind));
}

std::string backend_guest_path(DomainId own_domain, BackendKind kind, DomainId guest) {
  return fmt::format("{}/{}", backend_kind_path(own_domain, kind), guest);
}

bool is_at_or_below(std::string_view path, std::string_view folder) {
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

std::string XenbusNodeId::path() const {
  return fmt::format("{}/{}", backend_guest_path(own_domain, kind, guest), device_id);
}

std::string XenbusNodeId::name() const {
  return fmt::format("{}/{}/{}", to_string(kind), guest, device_id);
}

Result<DiskDescription> XenbusNode::read_description(XenStoreAccess& store) const {
  DiskDescription description;
  auto params = store.read(path_ + "/params");
  if (!params) {
    return tl::unexpected(params.error());
  }
  description.params = std::move(*params);
  auto frontend = store.read(path_ + "/frontend");
  if (!frontend) {
    return tl::unexpected(frontend.error());
  }
  // The toolstack writes it, and only it can; a path elsewhere would make us watch other nodes.
  const std::string expected = fmt::format("/local/domain/{}/device/vbd/", id_.guest);
  if (!frontend->starts_with(expected) || frontend->size() > kMaxPathBytes) {
    return fail(
        ErrorCode::invalid_argument,
        fmt::format("{}: the frontend's path is not one of domain {}", id_.name(), id_.guest));
  }
  description.frontend_path = std::move(*frontend);
  auto name = read_or(store, path_ + "/dev", "");
  auto mode = read_or(store, path_ + "/mode", "w");
  auto device_type = read_or(store, path_ + "/device-type", "disk");
  auto removable = read_or(store, path_ + "/removable", "0");
  auto discards = read_or(store, path_ + "/discard-enable", "1");
  for (const auto* value : {&name, &mode, &device_type, &removable, &discards}) {
    if (!*value) {
      return tl::unexpected(value->error());
    }
  }
  const bool plain =
      !name->empty() && name->size() <= 32 &&
      std::all_of(name->begin(), name->end(), [](char c) { return c > ' ' && c < 0x7f; });
  description.device_id = id_.device_id;
  description.virtual_device = plain ? *name : std::to_string(id_.device_id);
  description.cdrom = *device_type == "cdrom";
  description.read_only = description.cdrom || !mode->starts_with('w');
  // What another domain serves, the device model has no way to.
  if (id_.own_domain == 0 && is_emulated_drive(*name, id_.device_id, description.cdrom)) {
    auto type = read_or(store, fmt::format("/libxl/{}/type", id_.guest), "");
    auto offered = read_or(store, path_ + "/" + kDevicePathKey, "");
    for (const auto* value : {&type, &offered}) {
      if (!*value) {
        return tl::unexpected(value->error());
      }
    }
    // libxl refuses a guest with a read-only IDE or AHCI drive that it finds a way to (4.20,
    // libxl__build_device_model_args_new). One whose mode has been changed since is there.
    if (*type == "hvm" && id_.kind == BackendKind::qdisk) {
      description.device_model_opens_it = true;
    } else if (*type == "hvm" && (!description.read_only || !offered->empty())) {
      description.firmware_drive = FirmwareDrive::of(id_.device_id, description.params);
    }
  }
  description.removable = *removable == "1";
  description.discards = *discards != "0";
  return description;
}

Result<XenbusStates> XenbusNode::read_states(XenStoreAccess& store,
                                             const std::string& frontend_path) const {
  XenbusStates states;
  auto backend = read_state(store, path_ + "/state");
  if (!backend) {
    return tl::unexpected(backend.error());
  }
  auto frontend = read_state(store, frontend_path + "/state");
  if (!frontend && frontend.error().code == ErrorCode::permission_denied) {
    // What a driver domain is told when the node has gone and it may not read the one above.
    frontend = XenbusState::unknown;
  }
  if (!frontend) {
    return tl::unexpected(frontend.error());
  }
  auto online = read_or(store, path_ + "/online", "0");
  if (!online) {
    return tl::unexpected(online.error());
  }
  states.backend = *backend;
  states.frontend = *frontend;
  states.online = *online == "1";
  return states;
}

Result<FrontendRing> XenbusNode::read_ring(XenStore& store, const std::string& frontend_path,
                                           const RingOffer& offer) const {
  FrontendRing ring;
  auto read = store.transaction([&](XenStoreAccess& access) -> Result<void> {
    auto attempt = read_frontend_ring(access, frontend_path, offer);
    if (!attempt) {
      return tl::unexpected(attempt.error());
    }
    ring = std::move(*attempt);
    return {};
  });
  if (!read) {
    return tl::unexpected(read.error());
  }
  return ring;
}

Result<void> XenbusNode::write_now(XenStoreAccess& access, XenbusState expected,
                                   const Entries& entries) const {
  auto state = read_state(access, path_ + "/state");
  if (!state) {
    return tl::unexpected(state.error());
  }
  if (*state != expected) {
    return fail(ErrorCode::conflict, fmt::format("{}: the state is {} now, not {}", id_.name(),
                                                 to_string(*state), to_string(expected)));
  }
  for (const auto& [key, value] : entries) {
    if (auto written = write_text(access, path_ + "/" + key, value); !written) {
      return written;
    }
  }
  return {};
}

Result<void> XenbusNode::write(XenStore& store, XenbusState expected,
                               const Entries& entries) const {
  return store.transaction(
      [&](XenStoreAccess& access) { return write_now(access, expected, entries); });
}

Result<bool> XenbusNode::write_for(XenStore& store, const DiskDescription& description,
                                   XenbusState expected, const Entries& entries) const {
  bool same = false;
  const auto written = store.transaction([&](XenStoreAccess& access) -> Result<void> {
    const auto found = read_description(access);
    if (!found) {
      return tl::unexpected(found.error());
    }
    same = *found == description;
    return same ? write_now(access, expected, entries) : Result<void>();
  });
  if (!written) {
    return tl::unexpected(written.error());
  }
  return same;
}

Result<void> XenbusNode::write_state(XenStore& store, XenbusState expected,
                                     XenbusState state) const {
  return write(store, expected, {{"state", std::to_string(static_cast<unsigned>(state))}});
}

Result<void> XenbusNode::write_hotplug(XenStore& store, bool connected, const std::string& error,
                                       const std::optional<std::string>& device_path) const {
  return store.transaction([&](XenStoreAccess& access) -> Result<void> {
    auto state = read_state(access, path_ + "/state");
    if (!state) {
      return tl::unexpected(state.error());
    }
    if (*state == XenbusState::unknown) {
      return {};
    }
    if (device_path) {
      const std::string key = path_ + "/" + kDevicePathKey;
      auto written =
          device_path->empty() ? remove_text(access, key) : write_text(access, key, *device_path);
      if (!written) {
        return written;
      }
    }
    if (connected) {
      if (auto written = write_text(access, path_ + "/hotplug-status", "connected"); !written) {
        return written;
      }
    }
    return error.empty() ? remove_text(access, path_ + "/hotplug-error")
                         : write_text(access, path_ + "/hotplug-error", error);
  });
}

Result<void> XenbusNode::remove(XenStore& store) const {
  return store.remove(path_);
}

XenbusNode::Entries XenbusNode::capabilities(const RingOffer& offer) {
  return {
      {"feature-flush-cache", "1"},
      {"feature-barrier", "1"},
      {"feature-persistent", "0"},
      {"max-ring-page-order", std::to_string(offer.max_page_order)},
      {"multi-queue-max-queues", std::to_string(offer.max_queues)},
      {"feature-max-indirect-segments", std::to_string(offer.max_indirect_segments)},
  };
}

XenbusNode::Entries XenbusNode::sizes(const Geometry& geometry, const DiskDescription& description,
                                      std::uint32_t sector_size) {
  std::uint32_t info = 0;
  info |= description.cdrom ? kInfoCdrom : 0;
  info |= description.removable ? kInfoRemovable : 0;
  info |= description.read_only || geometry.read_only ? kInfoReadOnly : 0;
  const bool discards = description.discards && !description.read_only && !geometry.read_only &&
                        geometry.discard_granularity_bytes != 0;
  Entries entries = {
      {"sectors", std::to_string(geometry.sector_count)},
      {"info", std::to_string(info)},
      {"sector-size", std::to_string(sector_size)},
      {"physical-sector-size", std::to_string(physical_sector_bytes(geometry))},
      {"feature-discard", discards ? "1" : "0"},
  };
  if (discards) {
    entries.emplace_back("discard-granularity", std::to_string(geometry.discard_granularity_bytes));
    entries.emplace_back("discard-alignment", std::to_string(geometry.discard_alignment_bytes));
    entries.emplace_back("discard-secure", "0");
  }
  return entries;
}

XenbusNode::Entries XenbusNode::identity(const LunNames& names) {
  Entries entries;
  const auto add = [&](const char* page, const std::vector<std::byte>& bytes) {
    if (!bytes.empty()) {
      entries.emplace_back(fmt::format("sm-data/scsi/0x12/{}", page), to_base64(bytes));
    }
  };
  add("0x80", write_serial_number_page(names));
  add("0x83", write_designator_page(names));
  return entries;
}

}  // namespace iscsi_blkback
