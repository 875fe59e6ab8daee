// A doubly linked list whose hooks live in the elements, so that linking never allocates. The list
// does not own its elements. Single-threaded. An element derives from ListHook<Tag> once for each
// list that it can be in at the same time; the tag is its own type, or another one for further
// lists.
#pragma once

#include "base/result.h"

namespace iscsi_blkback {

template <class T, class Tag>
class IntrusiveList;

template <class Tag>
class ListHook {
 public:
  ListHook() = default;
  ListHook(const ListHook&) = delete;
  ListHook& operator=(const ListHook&) = delete;
  ~ListHook() { ISCSI_BLKBACK_ASSERT(!linked()); }

  [[nodiscard]] bool linked() const { return next_ != nullptr; }

  void unlink() {
    ISCSI_BLKBACK_ASSERT(linked());
    next_->previous_ = previous_;
    previous_->next_ = next_;
    next_ = previous_ = nullptr;
  }

 private:
  template <class T, class ListTag>
  friend class IntrusiveList;
  ListHook* next_ = nullptr;
  ListHook* previous_ = nullptr;
};

template <class T, class Tag = T>
class IntrusiveList {
  using Hook = ListHook<Tag>;

 public:
  IntrusiveList() { head_.next_ = head_.previous_ = &head_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;
  ~IntrusiveList() {
    ISCSI_BLKBACK_ASSERT(empty());
    head_.next_ = head_.previous_ = nullptr;
  }

  [[nodiscard]] bool empty() const { return head_.next_ == &head_; }
  [[nodiscard]] T& front() {
    ISCSI_BLKBACK_ASSERT(!empty());
    return static_cast<T&>(*head_.next_);
  }

  void push_back(T& element) { insert_before(head_, element); }
  void push_front(T& element) { insert_before(*head_.next_, element); }

  T* pop_front() {
    if (empty()) {
      return nullptr;
    }
    T& first = front();
    static_cast<Hook&>(first).unlink();
    return &first;
  }

  // Moves every element of other to the end of this list, in order.
  void take_all(IntrusiveList& other) {
    while (T* moved = other.pop_front()) {
      push_back(*moved);
    }
  }

  // Calls visit(T&) for each element; visit may unlink the element that it is given, no other.
  template <class Visit>
  void for_each(Visit&& visit) {
    for (Hook* at = head_.next_; at != &head_;) {
      Hook* next = at->next_;
      visit(static_cast<T&>(*at));
      at = next;
    }
  }

 private:
  static void insert_before(Hook& at, Hook& added) {
    ISCSI_BLKBACK_ASSERT(!added.linked());
    added.next_ = &at;
    added.previous_ = at.previous_;
    at.previous_->next_ = &added;
    at.previous_ = &added;
  }

  Hook head_;
};

}  // namespace iscsi_blkback
