// DiskDeviceTest: a disk's device with an I/O side that does nothing but note what it is asked.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "blkback/guest/disk_device.h"
#include "tests/support/no_portal_resolver.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

using namespace std::chrono_literals;

// Notes what is asked; the test tells the events.
class IdlePlane final : public DataPlane {
 public:
  std::unique_ptr<DiskPort> open(DiskHandle, DiskSpecification specification,
                                 DiskEvents& to) override {
    events = &to;
    opened = std::move(specification);
    asked.emplace_back("open");
    return std::make_unique<Port>(*this);
  }
  void set_guest(DiskHandle, const GuestNow&) override {}
  void query(std::function<void(std::vector<DiskReport>)>) override {}

  DiskEvents* events = nullptr;  // null: there is no port
  RingEvents* ring_events = nullptr;
  DiskSpecification opened;
  std::vector<std::string> asked;
  std::vector<ResolvedPortal> removed;  // what remove_paths() answers

 private:
  class Port final : public DiskPort {
   public:
    explicit Port(IdlePlane& plane) : plane_(plane) {}
    ~Port() override { plane_.events = nullptr; }
    void add_portals(std::vector<ResolvedPortal>) override { note("add_portals"); }
    void add_paths(std::vector<ResolvedPortal> portals,
                   std::function<void(Result<void>)> done) override {
      note("add_path " + portals.at(0).portal.host);
      done({});
    }
    void remove_paths(PathChoice choice,
                      std::function<void(Result<std::vector<ResolvedPortal>>)> done) override {
      note("remove_path " + choice.portal.host);
      done(plane_.removed);
    }
    void change_policies(const PathPolicySettings&) override { note("change_policies"); }
    void set_no_path_retry(std::optional<NoPathRetry> wait) override {
      note(!wait    ? "set_no_path_retry default"
           : !*wait ? "set_no_path_retry queue"
                    : fmt::format("set_no_path_retry {} ms", (*wait)->count()));
    }
    void set_read_only(bool read_only) override { note(read_only ? "read_only" : "read_write"); }
    void connect_ring(FrontendRing, RingEvents& to) override {
      plane_.ring_events = &to;
      note("connect_ring");
    }
    void serve_nbd(UniqueFd, bool) override { note("serve_nbd"); }
    void disconnect_ring(RingEnd end) override {
      note(end == RingEnd::abandon ? "abandon_ring" : "disconnect_ring");
    }
    void close(bool abandon) override { note(abandon ? "abandon" : "close"); }
    void keep_place() override { note("keep_place"); }

   private:
    void note(std::string what) { plane_.asked.push_back(std::move(what)); }
    IdlePlane& plane_;
  };
};

class DiskDeviceTest : public testing::Test, public DiskOwner {
 protected:
  DiskDeviceTest() {
    configuration_.initiator_name = "iqn.2026-01.test:host";
    make("aio:iscsi://192.0.2.1,192.0.2.2/iqn.2026-01.test:target/1");
  }

  void make(const std::string& params) {
    description_.params = params;
    description_.virtual_device = "xvda";
    device_ = std::make_unique<DiskDevice>(
        DiskEnvironment{reactor_, plane_, resolver_, configuration_, log_}, *this, DiskHandle{1},
        "qdisk/5/51712", description_);
  }
  void open() {
    device_->open();
    reactor_.run_for(1s);
    ASSERT_TRUE(device_->is_open());
  }
  void serve() {
    open();
    plane_.events->on_ready({.sector_count = 2048}, names_);
    ASSERT_TRUE(device_->ready());
    plane_.asked.clear();
  }
  std::string refusal(DiskChange::What what) {
    std::string sentence = "no answer";
    device_->change(
        what, [&](const Result<void>& result) { sentence = result ? "" : result.error().message; });
    reactor_.run_for(1s);
    return sentence;
  }
  static PathChoice path(const char* host) {
    return {.portal = {.host = host, .port = 3260, .interface_binding = {}}, .target_name = {}};
  }
  static ResolvedPortal resolved(const char* host) {
    ResolvedPortal where;
    where.portal = path(host).portal;
    where.address = SocketAddress::parse(host, 3260).value();
    where.target_name = "iqn.2026-01.test:target";
    return where;
  }
  std::vector<std::string> opened_hosts() const {
    std::vector<std::string> hosts;
    for (const ResolvedPortal& where : plane_.opened.portals) {
      hosts.push_back(where.portal.host);
    }
    return hosts;
  }

  void on_change() override {}
  void on_device_closed() override { ++closed_; }
  void on_error(const std::string& sentence) override { error_ = sentence; }

  SimReactor reactor_{1};
  IdlePlane plane_;
  PathDiscovery resolver_{reactor_, std::make_unique<NoPortalResolver>()};
  Configuration configuration_;
  LogLimiter log_;
  DiskDescription description_;
  LunNames names_{.designators = {}, .serial = "SERIAL1", .vendor = {}, .product = {}};
  std::unique_ptr<DiskDevice> device_;
  std::string error_;
  int closed_ = 0;
};

}  // namespace iscsi_blkback
