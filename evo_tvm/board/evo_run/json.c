/* A reader of JSON that keeps nothing: the whole text is checked once, and then looked through where it lies. */
#include <stdlib.h>
#include <string.h>

#include "evo_run.h"

enum { kMaxDepth = 64 };

static const char* skip_space(const char* at, const char* end) {
  while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) ++at;
  return at;
}

static const char* skip_string(const char* at, const char* end) {
  if (at == end || *at++ != '"') return NULL;
  for (; at < end && *at != '"'; ++at) {
    if (*at == '\\' && ++at == end) return NULL;
  }
  return at < end ? at + 1 : NULL;
}

static const char* skip_word(const char* at, const char* end) {
  const char* begin = at;
  while (at < end && *at != '\0' && strchr("+-.0123456789abcdefghijklmnopqrstuvwxyzEINaft", *at) != NULL) ++at;
  return at > begin ? at : NULL;
}

/* Where the value that begins at `at` ends, and NULL where it is not one. */
static const char* skip_value(const char* at, const char* end, int depth) {
  if (at == end || depth > kMaxDepth) return NULL;
  if (*at == '"') return skip_string(at, end);
  if (*at != '{' && *at != '[') return skip_word(at, end);
  const bool object = *at == '{';
  const char close = object ? '}' : ']';
  at = skip_space(at + 1, end);
  if (at < end && *at == close) return at + 1;
  for (;;) {
    if (object) {
      at = skip_string(at, end);
      if (at == NULL || (at = skip_space(at, end)) == end || *at != ':') return NULL;
      at = skip_space(at + 1, end);
    }
    at = skip_value(at, end, depth + 1);
    if (at == NULL || (at = skip_space(at, end)) == end) return NULL;
    if (*at == close) return at + 1;
    if (*at != ',') return NULL;
    at = skip_space(at + 1, end);
  }
}

Json json_parse(const char* text, size_t bytes) {
  const char *end = text + bytes, *at = skip_space(text, end), *after = skip_value(at, end, 0);
  return after != NULL && skip_space(after, end) == end ? (Json){at, end} : (Json){NULL, NULL};
}

/* The value, or the name, after a bracket or comma at `at`; none where the bracket closes. */
static Json item(const char* at, const char* end) {
  at = skip_space(at + 1, end);
  return *at == ']' || *at == '}' ? (Json){NULL, NULL} : (Json){at, end};
}

Json json_first(Json array) {
  return array.at != NULL && *array.at == '[' ? item(array.at, array.end) : (Json){NULL, NULL};
}

Json json_next(Json element) {
  const char* at = skip_space(skip_value(element.at, element.end, 0), element.end);
  return *at == ',' ? item(at, element.end) : (Json){NULL, NULL};
}

Json json_member(Json object, const char* name) {
  if (object.at == NULL || *object.at != '{') return (Json){NULL, NULL};
  const size_t length = strlen(name);
  Json key = item(object.at, object.end);
  while (key.at != NULL) {
    const char* after = skip_string(key.at, key.end);
    const bool found = (size_t)(after - key.at) == length + 2 && memcmp(key.at + 1, name, length) == 0;
    after = skip_space(after, key.end); /* the colon */
    Json value = {skip_space(after + 1, key.end), key.end};
    if (found) return value;
    key = json_next(value);
  }
  return key;
}

static unsigned hexadecimal(const char* at) {
  char digits[5] = {at[0], at[1], at[2], at[3], '\0'};
  return (unsigned)strtoul(digits, NULL, 16);
}

/* `code` as UTF-8 at `out`; returns what follows it. */
static char* write_utf8(char* out, unsigned code) {
  if (code < 0x80) {
    *out++ = (char)code;
    return out;
  }
  int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  *out++ = (char)((more == 1 ? 0xC0 : more == 2 ? 0xE0 : 0xF0) | code >> 6 * more);
  while (more-- > 0) *out++ = (char)(0x80 | (code >> 6 * more & 0x3F));
  return out;
}

char* json_text(Json value) {
  if (value.at == NULL || *value.at != '"') return NULL;
  const char* end = skip_string(value.at, value.end) - 1;
  char *text = allocate((size_t)(end - value.at) + 1), *out = text;
  for (const char* at = value.at + 1; at < end; ++at) {
    if (*at != '\\') {
      *out++ = *at;
      continue;
    }
    const char *escapes = "bfnrt", *found = strchr(escapes, *++at);
    if (found != NULL) {
      *out++ = "\b\f\n\r\t"[found - escapes];
    } else if (*at == 'u' && end - at > 4) {
      unsigned code = hexadecimal(at + 1);
      at += 4;
      if (code >= 0xD800 && code < 0xDC00 && end - at > 6 && at[1] == '\\' && at[2] == 'u') {
        code = 0x10000 + ((code - 0xD800) << 10) + (hexadecimal(at + 3) & 0x3FF);
        at += 6;
      }
      out = write_utf8(out, code);
    } else {
      *out++ = *at;
    }
  }
  *out = '\0';
  return text;
}

bool json_natural(Json value, uint64_t* result) {
  if (value.at == NULL) return false;
  const char *at = value.at, *end = skip_value(at, value.end, 0);
  for (*result = 0; at < end; ++at) {
    if (*at < '0' || *at > '9') return false;
    *result = *result * 10 + (uint64_t)(*at - '0');
    if (*result > (uint64_t)1 << 53) return false;
  }
  return true;
}

bool json_number(Json value, double* result) {
  if (value.at == NULL || *value.at == '"' || *value.at == '[' || *value.at == '{') return false;
  char* end;
  *result = strtod(value.at, &end);
  return end == skip_value(value.at, value.end, 0) && *result == *result;
}

void json_write_text(FILE* file, const char* text) {
  fputc('"', file);
  for (const unsigned char* at = (const unsigned char*)text; *at != '\0'; ++at) {
    if (*at < 0x20) {
      fprintf(file, "\\u%04x", *at);
    } else {
      if (*at == '"' || *at == '\\') fputc('\\', file);
      fputc(*at, file);
    }
  }
  fputc('"', file);
}
