// What a stream of an accepted client does, on the real reactor and on the simulated one; the client is
// the other end of a pair of unix sockets.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string>

#include "base/byte_stream.h"
#include "base/unique_fd.h"
#include "tests/base/contract_world.h"

namespace iscsi_blkback {
namespace {

class AdoptedStreamContract : public testing::TestWithParam<ContractWorldKind>,
                              protected ByteStream::Owner {
 protected:
  AdoptedStreamContract() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    client_.reset(ends[0]);
    stream_ = world_->reactor().adopt(UniqueFd(ends[1]), *this);
  }
  ~AdoptedStreamContract() override {
    stream_->reset();
    EXPECT_TRUE(run_until([&] { return closed_.has_value(); }));
  }

  bool run_until(const std::function<bool()>& predicate) { return world_->run_until(predicate); }
  void send(Bytes& bytes) {
    const iovec part{bytes.data(), bytes.size()};
    stream_->send({&part, 1});
  }
  void receive(Bytes& bytes) {
    const iovec part{bytes.data(), bytes.size()};
    stream_->receive({&part, 1});
  }
  // What has come so far, at the client.
  void client_reads() {
    std::byte buffer[4096];
    ssize_t count = 0;
    while ((count = recv(client_.get(), buffer, sizeof buffer, MSG_DONTWAIT)) > 0) {
      at_client_.insert(at_client_.end(), buffer, buffer + count);
    }
    client_saw_end_ = client_saw_end_ || count == 0;
  }

  void on_connected() noexcept override { ADD_FAILURE() << "it was connected from the start"; }
  void on_sent() noexcept override { ++sent_; }
  void on_received(std::size_t count) noexcept override { received_ += count; }
  void on_closed(const Error& error) noexcept override { closed_ = error; }

  std::unique_ptr<ContractWorld> world_ = GetParam().make();
  UniqueFd client_;
  std::unique_ptr<ByteStream> stream_;
  Bytes at_client_;
  bool client_saw_end_ = false;
  int sent_ = 0;
  std::size_t received_ = 0;
  std::optional<Error> closed_;
};

TEST_P(AdoptedStreamContract, SendsAndReceivesAtOnce) {
  Bytes question(5), answer(300);
  std::iota(reinterpret_cast<unsigned char*>(answer.data()),
            reinterpret_cast<unsigned char*>(answer.data()) + answer.size(), 0);
  receive(question);
  send(answer);
  ASSERT_EQ(::send(client_.get(), "hello", 5, 0), 5);
  ASSERT_TRUE(run_until([&] { return received_ == 5 && sent_ == 1; }));
  EXPECT_EQ(std::memcmp(question.data(), "hello", 5), 0);
  client_reads();
  EXPECT_EQ(at_client_, answer);
}

TEST_P(AdoptedStreamContract, SendsGoOnWhenTheClientReadsAgain) {
  Bytes answer(4'000'000, std::byte{7});
  send(answer);
  world_->settle();
  EXPECT_EQ(sent_, 0);
  ASSERT_TRUE(run_until([&] {
    client_reads();
    return sent_ == 1;
  }));
  client_reads();
  EXPECT_EQ(at_client_, answer);
}

TEST_P(AdoptedStreamContract, TheClientsEndEndsIt) {
  Bytes question(5);
  receive(question);
  client_.reset();
  ASSERT_TRUE(run_until([&] { return closed_.has_value(); }));
  EXPECT_NE(closed_->message.find("a local client"), std::string::npos) << closed_->message;
}

TEST_P(AdoptedStreamContract, WhatWasSentBeforeAResetArrives) {
  Bytes answer(100, std::byte{9});
  send(answer);
  ASSERT_TRUE(run_until([&] { return sent_ == 1; }));
  stream_->reset();
  ASSERT_TRUE(run_until([&] {
    client_reads();
    return client_saw_end_;
  }));
  EXPECT_EQ(at_client_, answer);
}

INSTANTIATE_TEST_SUITE_P(All, AdoptedStreamContract, testing::ValuesIn(contract_worlds()),
                         [](const testing::TestParamInfo<ContractWorldKind>& test) {
                           return test.param.name;
                         });

}  // namespace
}  // namespace iscsi_blkback
