// GatedXenStore: a XenStore whose user may ask only for what the helper of a guest's process lets through
// (XenStoreGate): all else is a failure of the test. So the gate has no less than what the product asks for.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "blkback/process/xenstore_gate.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {

class GatedXenStore final : public XenStore {
 public:
  GatedXenStore(std::unique_ptr<XenStore> store, const XenStoreGate& gate)
      : store_(std::move(store)), gate_(gate) {}

  Result<std::string> read(const std::string& path) override {
    EXPECT_TRUE(gate_.may_read(path)) << path;
    return store_->read(path);
  }
  Result<void> write(const std::string& path, std::string_view value) override {
    EXPECT_TRUE(gate_.may_write(path, value)) << path << " = " << value;
    return store_->write(path, value);
  }
  Result<void> remove(const std::string& path) override {
    EXPECT_TRUE(gate_.may_remove(path)) << path;
    return store_->remove(path);
  }
  Result<std::vector<std::string>> list(const std::string& path) override {
    EXPECT_TRUE(gate_.may_read(path)) << path;
    return store_->list(path);
  }
  Result<void> transaction(const std::function<Result<void>(XenStoreAccess&)>& body) override {
    return store_->transaction([&](XenStoreAccess& access) {
      Within within(access, gate_);
      return body(within);
    });
  }
  Result<void> watch(const std::string& path, const std::string& token) override {
    EXPECT_TRUE(gate_.may_watch(path)) << path;
    return store_->watch(path, token);
  }
  void unwatch(const std::string& path, const std::string& token) override {
    EXPECT_TRUE(gate_.may_watch(path)) << path;
    store_->unwatch(path, token);
  }
  int fd() const override { return store_->fd(); }
  Result<std::optional<WatchEvent>> next_event() override { return store_->next_event(); }

 private:
  class Within final : public XenStoreAccess {
   public:
    Within(XenStoreAccess& access, const XenStoreGate& gate) : access_(access), gate_(gate) {}
    Result<std::string> read(const std::string& path) override {
      EXPECT_TRUE(gate_.may_read(path)) << path;
      return access_.read(path);
    }
    Result<void> write(const std::string& path, std::string_view value) override {
      EXPECT_TRUE(gate_.may_write(path, value)) << path << " = " << value;
      return access_.write(path, value);
    }
    Result<void> remove(const std::string& path) override {
      EXPECT_TRUE(gate_.may_remove(path)) << path;
      return access_.remove(path);
    }

   private:
    XenStoreAccess& access_;
    const XenStoreGate& gate_;
  };

  std::unique_ptr<XenStore> store_;
  const XenStoreGate gate_;
};

}  // namespace iscsi_blkback
