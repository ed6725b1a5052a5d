/* Questions about texts. */
#ifndef TVM_SUPPORT_UTILS_H_
#define TVM_SUPPORT_UTILS_H_

#include <algorithm>
#include <string>

namespace tvm {
namespace support {

inline bool StartsWith(const std::string& text, const char* start) { return text.rfind(start, 0) == 0; }

inline bool IsNumber(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace support
}  // namespace tvm

#endif
