/* Memory for trivial values that are all given back at once. */
#ifndef TVM_SUPPORT_ARENA_H_
#define TVM_SUPPORT_ARENA_H_

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace tvm {
namespace support {

class Arena {
 public:
  template <typename T>
  T* allocate_(size_t number) {
    static_assert(alignof(T) <= alignof(std::max_align_t));
    void* data = std::malloc(number * sizeof(T) + 1);
    if (data == nullptr) throw std::bad_alloc();
    blocks_.emplace_back(data);
    return static_cast<T*>(data);
  }
  void RecycleAll() { blocks_.clear(); }

 private:
  struct Free {
    void operator()(void* data) const { std::free(data); }
  };
  std::vector<std::unique_ptr<void, Free>> blocks_;
};

}  // namespace support
}  // namespace tvm

#endif
