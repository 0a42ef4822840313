#include "core/base64.h"

#include <stdint.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void qn__base64_encode(const void *data, size_t size_bytes, char *text)
{
    const uint8_t *bytes = data;
    const size_t whole = size_bytes / 3 * 3;
    for (size_t i = 0; i < whole; i += 3, text += 4) {
        const uint32_t group =
            (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | (uint32_t)bytes[i + 2];
        text[0] = digits[group >> 18];
        text[1] = digits[group >> 12 & 63];
        text[2] = digits[group >> 6 & 63];
        text[3] = digits[group & 63];
    }
    for (size_t i = whole; i < size_bytes; i += 3, text += 4) {
        const size_t left = size_bytes - i;
        const uint32_t group =
            (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0);
        text[0] = digits[group >> 18];
        text[1] = digits[group >> 12 & 63];
        text[2] = left > 1 ? digits[group >> 6 & 63] : '=';
        text[3] = '=';
    }
    *text = '\0';
}

static int digit_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool qn__base64_decode(const char *text, size_t length, void *data, size_t size_bytes)
{
    uint8_t *bytes = data;
    if (length != qn__base64_length(size_bytes))
        return false;
    for (size_t i = 0; i < size_bytes; i += 3, text += 4) {
        const size_t left = size_bytes - i < 3 ? size_bytes - i : 3;
        uint32_t group = 0;
        for (size_t d = 0; d < 4; d++) {
            const bool padding = d > left;
            const int value = padding ? 0 : digit_value(text[d]);
            if (value < 0 || (padding && text[d] != '='))
                return false;
            group = group << 6 | (uint32_t)value;
        }
        if (left < 3 && (group & ((1u << (24 - 8 * left)) - 1)) != 0)
            return false;
        for (size_t b = 0; b < left; b++)
            bytes[i + b] = (uint8_t)(group >> (16 - 8 * b));
    }
    return true;
}
