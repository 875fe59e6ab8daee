#include "base/intrusive_list.h"

#include <gtest/gtest.h>

#include <vector>

namespace iscsi_blkback {
namespace {

struct Element : ListHook<Element> {
  explicit Element(int number_in) : number(number_in) {}
  int number;
};

std::vector<int> numbers(IntrusiveList<Element>& list) {
  std::vector<int> found;
  list.for_each([&](Element& element) { found.push_back(element.number); });
  return found;
}

TEST(IntrusiveList, KeepsTheOrderOfPushing) {
  Element one(1), two(2), three(3);
  IntrusiveList<Element> list;
  list.push_back(two);
  list.push_back(three);
  list.push_front(one);
  EXPECT_EQ(numbers(list), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(list.pop_front(), &one);
  EXPECT_FALSE(one.linked());
  three.unlink();
  EXPECT_EQ(numbers(list), (std::vector<int>{2}));
  two.unlink();
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(list.pop_front(), nullptr);
}

TEST(IntrusiveList, ForEachMayUnlinkTheElementItIsGiven) {
  Element one(1), two(2), three(3);
  IntrusiveList<Element> list;
  list.push_back(one);
  list.push_back(two);
  list.push_back(three);
  list.for_each([](Element& element) {
    if (element.number == 2) {
      element.unlink();
    }
  });
  EXPECT_EQ(numbers(list), (std::vector<int>{1, 3}));
  one.unlink();
  three.unlink();
}

TEST(IntrusiveList, TakeAllMovesInOrder) {
  Element one(1), two(2), three(3);
  IntrusiveList<Element> list;
  IntrusiveList<Element> other;
  list.push_back(one);
  other.push_back(two);
  other.push_back(three);
  list.take_all(other);
  EXPECT_TRUE(other.empty());
  EXPECT_EQ(numbers(list), (std::vector<int>{1, 2, 3}));
  while (list.pop_front() != nullptr) {
  }
}

TEST(IntrusiveListDeathTest, AHookIsInOneListOnly) {
  Element one(1);
  IntrusiveList<Element> list;
  IntrusiveList<Element> other;
  list.push_back(one);
  EXPECT_DEATH(other.push_back(one), "assertion failed");
  one.unlink();
}

}  // namespace
}  // namespace iscsi_blkback
