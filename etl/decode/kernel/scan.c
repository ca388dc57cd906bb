/* JSON text -> Arrow's buffers. scan.h says what is promised; read aht_scan first, at the end. */
#include "scan.h"

#include <stddef.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "names and digits are compared eight bytes at a time, lowest byte first"
#endif

/* What became of a piece of text. CUT: it goes on behind the end of what is there. */
enum result { OK, CUT, FULL, LEAVE };

#define TRY(call)                                                                                  \
    do {                                                                                           \
        enum result result_ = (call);                                                              \
        if (result_ != OK) return result_;                                                         \
    } while (0)

/* The text that is left, and the room that is left in one buffer of bytes. */
struct reader {
    const uint8_t *at, *end;
};
struct writer {
    uint8_t *at, *limit;
};

/* ---- known fields ---- */

enum { SEGMENT_ID, START_REASON, END_REASON, EXTRAS, FIRST_INTEGER, UNKNOWN = -1 };

struct name {
    const char text[17]; /* padded with NULs: 16 bytes may be read */
    int8_t length;
    int8_t column;
};
static const struct name NAMES[] = {
    {"segmentId", 9, SEGMENT_ID},
    {"sequence", 8, FIRST_INTEGER},
    {"startReason", 11, START_REASON},
    {"endReason", 9, END_REASON},
    {"startTimestamp", 14, FIRST_INTEGER + 1},
    {"endTimestamp", 12, FIRST_INTEGER + 2},
    {"handleTimeMillis", 16, FIRST_INTEGER + 4},
    {"insertTimestamp", 15, FIRST_INTEGER + 3},
};
enum { NAME_COUNT = sizeof NAMES / sizeof *NAMES };

/* Milliseconds of the years 1 to 9999 (etl/model/dataset.py, TIMESTAMP_MIN_MS and TIMESTAMP_MAX_MS). */
static const int64_t LEAST_MS = -62135596800000, MOST_MS = 253402300799999;

static int is_timestamp(int column) {
    return column > FIRST_INTEGER && column < FIRST_INTEGER + 4;
}

static int find_name(const uint8_t *key, ptrdiff_t length) {
    for (int i = 0; i < NAME_COUNT; i++)
        if (length == NAMES[i].length && !memcmp(key, NAMES[i].text, (size_t)length)) return i;
    return UNKNOWN;
}

/* Whether `name` and a quote begin at `key`. */
static inline int is_name(const uint8_t *key, const uint8_t *end, const struct name *name) {
    if (end - key <= 16 || key[name->length] != '"') return 0; /* the slow way will tell */
    uint64_t have[2], want[2];
    memcpy(have, key, 16);
    memcpy(want, name->text, 16);
    uint64_t low = have[0] ^ want[0], high = have[1] ^ want[1];
    /* Names have 8 to 16 bytes. Little-endian: the first byte is the lowest. */
    int rest = name->length - 8;
    uint64_t mask = rest == 8 ? ~(uint64_t)0 : ((uint64_t)1 << (8 * rest)) - 1;
    return !low && !(high & mask);
}

/* Return the number of the name that stands at `key`, with its quote; UNKNOWN if the slow way must
 * tell. */
static inline int guess_name(const uint8_t *key, const uint8_t *end) {
    for (int i = 0; i < NAME_COUNT; i++)
        if (is_name(key, end, &NAMES[i])) return i;
    return UNKNOWN;
}

/* ---- white space, single bytes ---- */

static inline void skip_space(struct reader *in) {
    while (in->at < in->end &&
           (*in->at == ' ' || *in->at == '\n' || *in->at == '\r' || *in->at == '\t'))
        in->at++;
}

static inline enum result put(struct writer *out, uint8_t byte) {
    if (out->at == out->limit) return FULL;
    *out->at++ = byte;
    return OK;
}

/* ---- strings ---- */

/* Find the bytes of 16 that end a run of plain text: a quote, a backslash, a control character.
 * `high` gets the bytes that are not ASCII. Each byte is one bit, or four bits on ARM. */
#if defined(__SSE2__)
#define HAVE_BLOCKS 1
typedef uint32_t bits;
static inline int byte_of(bits mask) { return __builtin_ctz(mask); }
static inline bits below(bits mask) { return (mask & -mask) - 1; }
static inline bits copy_block(const uint8_t *from, uint8_t *to, bits *high) {
    __m128i block = _mm_loadu_si128((const __m128i *)from);
    _mm_storeu_si128((__m128i *)to, block);
    __m128i quote = _mm_cmpeq_epi8(block, _mm_set1_epi8('"'));
    __m128i slash = _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'));
    __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block);
    *high = (bits)_mm_movemask_epi8(block);
    return (bits)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, slash), control));
}
#elif defined(__aarch64__) && defined(__ARM_NEON)
#define HAVE_BLOCKS 1
typedef uint64_t bits;
static inline int byte_of(bits mask) { return __builtin_ctzll(mask) >> 2; }
static inline bits below(bits mask) { return (mask & -mask) - 1; }
static inline bits narrow(uint8x16_t flags) {
    return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(flags), 4)), 0);
}
static inline bits copy_block(const uint8_t *from, uint8_t *to, bits *high) {
    uint8x16_t block = vld1q_u8(from);
    vst1q_u8(to, block);
    uint8x16_t stops = vorrq_u8(vceqq_u8(block, vdupq_n_u8('"')), vceqq_u8(block, vdupq_n_u8('\\')));
    *high = narrow(vcgeq_u8(block, vdupq_n_u8(0x80)));
    return narrow(vorrq_u8(stops, vcltq_u8(block, vdupq_n_u8(0x20))));
}
#endif

static int is_utf8(const uint8_t *at, const uint8_t *end) {
    while (at < end) {
        uint8_t lead = *at++;
        if (lead < 0x80) continue;
        int more = lead >= 0xc2 && lead < 0xe0 ? 1 : lead >= 0xe0 && lead < 0xf0 ? 2
                 : lead >= 0xf0 && lead < 0xf5 ? 3 : 0;
        if (!more || end - at < more) return 0;
        /* Neither overlong, nor a surrogate, nor beyond U+10FFFF: the second byte tells. */
        uint8_t least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        uint8_t most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        if (*at < least || *at > most) return 0;
        at++;
        for (; more > 1; more--)
            if ((*at++ & 0xc0) != 0x80) return 0;
    }
    return 1;
}

/* Read the four digits of \uXXXX; -1 where there are none. */
static int32_t hexadecimal(const uint8_t *at) {
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                  : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

static enum result put_character(struct writer *out, int32_t character) {
    if (out->limit - out->at < 4) return FULL;
    uint8_t *to = out->at;
    if (character < 0x80) {
        *to++ = (uint8_t)character;
    } else if (character < 0x800) {
        *to++ = (uint8_t)(0xc0 | character >> 6);
        *to++ = (uint8_t)(0x80 | (character & 0x3f));
    } else if (character < 0x10000) {
        *to++ = (uint8_t)(0xe0 | character >> 12);
        *to++ = (uint8_t)(0x80 | (character >> 6 & 0x3f));
        *to++ = (uint8_t)(0x80 | (character & 0x3f));
    } else {
        *to++ = (uint8_t)(0xf0 | character >> 18);
        *to++ = (uint8_t)(0x80 | (character >> 12 & 0x3f));
        *to++ = (uint8_t)(0x80 | (character >> 6 & 0x3f));
        *to++ = (uint8_t)(0x80 | (character & 0x3f));
    }
    out->at = to;
    return OK;
}

/* Read an escape, at its backslash. Half a surrogate pair is left: it is no character. */
static enum result read_escape(struct reader *in, int32_t *character) {
    static const char SHORT[] = "\"\\/bfnrt", MEANT[] = "\"\\/\b\f\n\r\t";
    const uint8_t *at = in->at;
    ptrdiff_t left = in->end - at;
    if (left < 2) return CUT;
    if (at[1] != 'u') {
        const char *found = at[1] ? strchr(SHORT, at[1]) : NULL;
        if (!found) return LEAVE;
        *character = MEANT[found - SHORT];
        in->at += 2;
        return OK;
    }
    if (left < 6) return CUT;
    int32_t first = hexadecimal(at + 2);
    in->at += 6;
    *character = first;
    if (first < 0 || (first >= 0xdc00 && first < 0xe000)) return LEAVE;
    if (first < 0xd800 || first >= 0xdc00) return OK;
    if (left < 12) return CUT;
    int32_t second = at[6] == '\\' && at[7] == 'u' ? hexadecimal(at + 8) : -1;
    if (second < 0xdc00 || second >= 0xe000) return LEAVE;
    in->at += 6;
    *character = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    return OK;
}

/* Copy the inside of a string, from behind its first quote to behind its last one, with escapes
 * resolved or, if `raw`, as they are. What is copied is valid UTF-8. `escaped` is set to 1 if there
 * is an escape. */
static inline enum result copy_string(struct reader *in, struct writer *out, int raw, int *escaped) {
    const uint8_t *begin = out->at;
    int not_ascii = 0;
    for (;;) {
#if defined(HAVE_BLOCKS)
        while (in->end - in->at >= 16) {
            if (out->limit - out->at < 16) return FULL;
            bits high, stops = copy_block(in->at, out->at, &high);
            if (!stops) {
                not_ascii |= high != 0;
                in->at += 16;
                out->at += 16;
                continue;
            }
            not_ascii |= (high & below(stops)) != 0;
            in->at += byte_of(stops);
            out->at += byte_of(stops);
            break;
        }
#endif
        for (;; in->at++) {
            if (in->at == in->end) return CUT;
            if (*in->at == '"' || *in->at == '\\' || *in->at < 0x20) break;
            not_ascii |= *in->at >= 0x80;
            TRY(put(out, *in->at));
        }
        if (*in->at == '"') break;
        if (*in->at != '\\') return LEAVE; /* a control character */
        *escaped = 1;
        int32_t character;
        const uint8_t *escape = in->at;
        TRY(read_escape(in, &character));
        if (!raw) {
            TRY(put_character(out, character));
        } else {
            while (escape < in->at) TRY(put(out, *escape++));
        }
    }
    in->at++;
    return not_ascii && !is_utf8(begin, out->at) ? LEAVE : OK;
}

/* ---- numbers and literals ---- */

static inline int is_digit(const struct reader *in) {
    return in->at < in->end && (uint8_t)(*in->at - '0') < 10;
}

static const uint64_t TENS[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

/* Read digits as a number: 19 at most, so that it fits into 64 bits. Returns how many there are; 20
 * for more. */
static inline int read_digits(struct reader *in, uint64_t *value) {
    const uint8_t *begin = in->at;
    uint64_t number = 0;
    while (in->end - in->at >= 8 && in->at - begin <= 8) {
        uint64_t chunk;
        memcpy(&chunk, in->at, 8);
        /* The first byte that is no digit: the high bit of a byte below '0' or above '9'. */
        uint64_t other = ((chunk - 0x3030303030303030) | (chunk + 0x4646464646464646) | chunk) &
                         0x8080808080808080;
        int count = other ? __builtin_ctzll(other) >> 3 : 8;
        if (count) {
            /* Eight digits at once; missing ones become zeros in front. */
            chunk = (chunk - 0x3030303030303030) << (8 * (8 - count));
            chunk = chunk * 10 + (chunk >> 8);
            chunk = ((chunk & 0x000000ff000000ff) * 0x000f424000000064 +
                     (chunk >> 16 & 0x000000ff000000ff) * 0x0000271000000001) >> 32;
            number = number * TENS[count] + chunk;
        }
        in->at += count;
        if (count < 8) {
            *value = number;
            return (int)(in->at - begin);
        }
    }
    for (; is_digit(in); in->at++) {
        if (in->at - begin == 19) return 20;
        number = number * 10 + (uint64_t)(*in->at - '0');
    }
    *value = number;
    return (int)(in->at - begin);
}

/* Read an integer: digits, quoted digits, or digits with zeros alone behind the point. */
static inline enum result read_integer(struct reader *in, int64_t *value) {
    int quoted = *in->at == '"';
    in->at += quoted;
    int negative = in->at < in->end && *in->at == '-';
    in->at += negative;
    const uint8_t *begin = in->at;
    uint64_t number = 0;
    int count = read_digits(in, &number);
    if (in->at == in->end) return CUT;
    if (!count || count > 19 || number > (uint64_t)INT64_MAX + (uint64_t)negative) return LEAVE;
    *value = (int64_t)(negative ? 0 - number : number);
    if (quoted) return *in->at++ == '"' ? OK : LEAVE;
    if (*begin == '0' && count > 1) return LEAVE;
    if (*in->at == '.') {
        const uint8_t *zeros = ++in->at;
        while (in->at < in->end && *in->at == '0') in->at++;
        if (in->at == in->end) return CUT;
        if (in->at == zeros) return LEAVE;
    }
    return OK; /* what follows is looked at by the caller: a comma or a brace, or it is left */
}

static enum result read_word(struct reader *in, const char *word, ptrdiff_t length) {
    ptrdiff_t have = in->end - in->at < length ? in->end - in->at : length;
    if (memcmp(in->at, word, (size_t)have)) return LEAVE;
    if (have < length) return CUT;
    in->at += length;
    return OK;
}

static enum result skip_digits(struct reader *in) {
    const uint8_t *begin = in->at;
    while (is_digit(in)) in->at++;
    if (in->at == in->end) return CUT;
    return in->at > begin ? OK : LEAVE;
}

static enum result skip_number(struct reader *in) {
    if (*in->at == '-') in->at++;
    if (in->at == in->end) return CUT;
    if (*in->at == '0') {
        if (++in->at == in->end) return CUT;
    } else {
        TRY(skip_digits(in));
    }
    if (*in->at == '.') {
        in->at++;
        TRY(skip_digits(in));
    }
    if (*in->at == 'e' || *in->at == 'E') {
        if (++in->at == in->end) return CUT;
        if (*in->at == '+' || *in->at == '-') in->at++;
        TRY(skip_digits(in));
    }
    return OK;
}

/* ---- values of unknown fields ---- */

static enum result copy_quoted(struct reader *in, struct writer *out) {
    int escaped = 0;
    TRY(put(out, *in->at++));
    TRY(copy_string(in, out, 1, &escaped));
    return put(out, '"');
}

static enum result copy_scalar(struct reader *in, struct writer *out) {
    const uint8_t *begin = in->at;
    switch (*begin) {
    case '"': return copy_quoted(in, out);
    case 't': TRY(read_word(in, "true", 4)); break;
    case 'f': TRY(read_word(in, "false", 5)); break;
    case 'n': TRY(read_word(in, "null", 4)); break;
    default: TRY(skip_number(in));
    }
    ptrdiff_t length = in->at - begin;
    if (out->limit - out->at < length) return FULL;
    memcpy(out->at, begin, (size_t)length);
    out->at += length;
    return OK;
}

/* Copy a key and its colon, and stop at the value behind it. */
static enum result copy_key(struct reader *in, struct writer *out) {
    if (*in->at != '"') return LEAVE;
    TRY(copy_quoted(in, out));
    skip_space(in);
    if (in->at == in->end) return CUT;
    if (*in->at != ':') return LEAVE;
    TRY(put(out, *in->at++));
    skip_space(in);
    return in->at == in->end ? CUT : OK;
}

/* Copy any JSON value without the white space in it, from its first byte to behind its last. */
static enum result copy_value(struct reader *in, struct writer *out, int most) {
    uint64_t is_object[(AHT_MAX_DEPTH + 63) / 64]; /* a bit for each open container */
    int depth = 0;
    for (;;) {
        /* At a value. */
        if (*in->at == '{' || *in->at == '[') {
            uint8_t open = *in->at;
            if (depth == most - 1) return LEAVE; /* the row itself is one level */
            uint64_t bit = (uint64_t)1 << (depth % 64);
            is_object[depth / 64] =
                (depth % 64 ? is_object[depth / 64] & (bit - 1) : 0) | (open == '{' ? bit : 0);
            depth++;
            TRY(put(out, *in->at++));
            skip_space(in);
            if (in->at == in->end) return CUT;
            if (*in->at != (open == '{' ? '}' : ']')) {
                if (open == '{') TRY(copy_key(in, out));
                continue;
            }
        } else {
            TRY(copy_scalar(in, out));
        }
        /* Behind a value, or at the end of an empty container. */
        for (;;) {
            if (!depth) return OK;
            skip_space(in);
            if (in->at == in->end) return CUT;
            int object = is_object[(depth - 1) / 64] >> ((depth - 1) % 64) & 1;
            if (*in->at == (object ? '}' : ']')) {
                TRY(put(out, *in->at++));
                depth--;
                continue;
            }
            if (*in->at != ',') return LEAVE;
            TRY(put(out, *in->at++));
            skip_space(in);
            if (in->at == in->end) return CUT;
            if (object) TRY(copy_key(in, out));
            break;
        }
    }
}

/* ---- rows ---- */

/* What one call remembers: the order of the keys in the row before. */
enum { REMEMBERED = 32 };
struct order {
    int8_t names[REMEMBERED];
};

struct row {
    struct writer strings[AHT_STRINGS];
    uint64_t unknown[AHT_MAX_UNKNOWN]; /* hashes of the keys that are in extras */
    int unknowns;
    int distinct;     /* AHT_DISTINCT is set */
    uint32_t present; /* a bit for each column */
};

static uint64_t hash_of(const uint8_t *at, const uint8_t *end) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    while (at < end) hash = (hash ^ *at++) * 1099511628211u;
    return hash;
}

/* Count an unknown field. Of two equal keys the last counts, so a row that may have two is left. */
static enum result add_unknown(struct row *row, const uint8_t *begin, const uint8_t *end) {
    int count = row->unknowns++;
    if (row->distinct) return OK;
    if (count == AHT_MAX_UNKNOWN) return LEAVE;
    uint64_t hash = row->unknown[count] = hash_of(begin, end);
    for (int i = 0; i < count; i++)
        if (row->unknown[i] == hash) return LEAVE;
    return OK;
}

/* Read a key that was not expected. Returns the number of its name in `found`. If it is unknown, it
 * stands in extras then, with its quotes, behind a brace or a comma. */
static enum result read_key(struct reader *in, struct row *row, int *found) {
    struct writer *extras = &row->strings[AHT_EXTRAS];
    struct writer out = *extras;
    const uint8_t *key = in->at;
    int escaped = 0;
    TRY(put(&out, row->unknowns ? ',' : '{'));
    TRY(put(&out, '"'));
    const uint8_t *begin = out.at;
    TRY(copy_string(in, &out, 0, &escaped));
    *found = find_name(begin, out.at - begin);
    if (*found != UNKNOWN) return OK;
    TRY(add_unknown(row, begin, out.at));
    if (escaped) {
        struct reader again = {key, in->end};
        out.at = (uint8_t *)begin;
        TRY(copy_string(&again, &out, 1, &escaped));
    }
    TRY(put(&out, '"'));
    *extras = out;
    return OK;
}

static inline enum result read_known(struct reader *in, struct aht_batch *batch, struct row *row, int column) {
    uint32_t bit = (uint32_t)1 << column;
    row->present &= ~bit; /* of two equal keys the last counts */
    if (*in->at == 'n') return read_word(in, "null", 4);
    if (column < AHT_STRINGS) {
        int escaped = 0;
        struct writer *out = &row->strings[column];
        out->at = batch->bytes[column] + batch->offsets[column][batch->rows];
        if (*in->at++ != '"') return LEAVE;
        TRY(copy_string(in, out, 0, &escaped));
    } else {
        int64_t value;
        TRY(read_integer(in, &value));
        if (is_timestamp(column) && (value < LEAST_MS || value > MOST_MS)) return LEAVE;
        batch->integers[column - FIRST_INTEGER][batch->rows] = value;
    }
    row->present |= bit;
    return OK;
}

/* Read an object into the row behind the last one; at its brace. */
static enum result read_row(struct reader *in, struct aht_batch *batch, struct order *order,
                            int distinct) {
    struct row row;
    row.distinct = distinct;
    row.unknowns = 0;
    row.present = 0;
    for (int i = 0; i < AHT_STRINGS; i++) {
        row.strings[i].at = batch->bytes[i] + batch->offsets[i][batch->rows];
        row.strings[i].limit = batch->bytes[i] + batch->bytes_capacity[i];
    }
    in->at++;
    for (int member = 0;; member++) {
        skip_space(in);
        if (in->at == in->end) return CUT;
        if (*in->at != '"') return LEAVE;
        in->at++;
        int8_t *expected = &order->names[member < REMEMBERED ? member : REMEMBERED - 1];
        int name = *expected;
        if (name != UNKNOWN && is_name(in->at, in->end, &NAMES[name])) {
            in->at += NAMES[name].length + 1;
        } else {
            name = guess_name(in->at, in->end);
            if (name != UNKNOWN)
                in->at += NAMES[name].length + 1;
            else
                TRY(read_key(in, &row, &name));
            *expected = (int8_t)name;
        }
        if (in->at == in->end) return CUT;
        if (*in->at != ':') {
            skip_space(in);
            if (in->at == in->end) return CUT;
            if (*in->at != ':') return LEAVE;
        }
        in->at++;
        skip_space(in);
        if (in->at == in->end) return CUT;
        if (name != UNKNOWN) {
            TRY(read_known(in, batch, &row, NAMES[name].column));
        } else {
            TRY(put(&row.strings[AHT_EXTRAS], ':'));
            TRY(copy_value(in, &row.strings[AHT_EXTRAS],
                           distinct ? AHT_MAX_DEPTH : AHT_USUAL_DEPTH));
        }
        skip_space(in);
        if (in->at == in->end) return CUT;
        if (*in->at == '}') break;
        if (*in->at != ',') return LEAVE;
        in->at++;
    }
    in->at++;
    if (!(row.present & 1u << SEGMENT_ID)) return LEAVE;
    if (row.unknowns) {
        TRY(put(&row.strings[AHT_EXTRAS], '}'));
        row.present |= 1u << AHT_EXTRAS;
    }
    int64_t number = batch->rows;
    for (int i = 0; i < AHT_COLUMNS; i++) {
        int present = row.present >> i & 1;
        if (i < AHT_STRINGS) {
            int64_t length = row.strings[i].at - batch->bytes[i];
            if (length > INT32_MAX) return FULL;
            batch->offsets[i][number + 1] = present ? (int32_t)length : batch->offsets[i][number];
        } else if (!present) {
            batch->integers[i - FIRST_INTEGER][number] = 0;
        }
        uint8_t *valid = batch->valid[i] + number / 8, bit = (uint8_t)(1u << (number % 8));
        if (present) {
            if (batch->nulls[i]) *valid = (uint8_t)((number % 8 ? *valid : 0) | bit);
        } else {
            if (!batch->nulls[i]++) {
                memset(batch->valid[i], 0xff, (size_t)(number / 8));
                *valid = (uint8_t)(bit - 1);
            } else if (!(number % 8)) {
                *valid = 0;
            }
        }
    }
    batch->rows++;
    return OK;
}

/* ---- the text ---- */

/* Go to the next value, over white space and what stands between two values at this place. */
static enum result find_value(struct reader *in, struct aht_batch *batch, const uint8_t *text) {
    for (;;) {
        skip_space(in);
        if (in->at == in->end) {
            if (batch->place == AHT_OUTSIDE) batch->position = in->at - text;
            return CUT;
        }
        if (batch->place == AHT_OUTSIDE) {
            /* A byte-order mark may stand in front of any value: files are concatenated. */
            if (*in->at != 0xef) return OK;
            TRY(read_word(in, "\xef\xbb\xbf", 3));
            batch->position = in->at - text;
            continue;
        }
        if (*in->at == ']') {
            in->at++;
            batch->place = AHT_OUTSIDE;
            batch->position = in->at - text;
            continue;
        }
        if (batch->place == AHT_ARRAY_BEGIN) return OK;
        if (*in->at != ',') return LEAVE;
        in->at++;
        skip_space(in);
        return in->at == in->end ? CUT : OK;
    }
}

enum aht_stop aht_scan(struct aht_batch *batch, const uint8_t *text, int64_t length, int32_t flags) {
    struct reader in = {text + batch->position, text + length};
    struct order order;
    memset(&order, UNKNOWN, sizeof order);
    for (int i = 0; i < NAME_COUNT; i++) order.names[i] = (int8_t)i;
    if (!batch->rows) {
        for (int i = 0; i < AHT_STRINGS; i++) batch->offsets[i][0] = 0;
        memset(batch->nulls, 0, sizeof batch->nulls);
    }
    for (;;) {
        enum result result = find_value(&in, batch, text);
        if (result == OK) {
            if (*in.at != '{')
                result = LEAVE;
            else if (batch->rows == batch->max_rows)
                result = FULL;
            else
                result = read_row(&in, batch, &order, flags & AHT_DISTINCT);
        }
        switch (result) {
        case OK:
            if (batch->place != AHT_OUTSIDE) batch->place = AHT_ARRAY_NEXT;
            batch->position = in.at - text;
            break;
        case CUT: return flags & AHT_FINAL && batch->position < length ? AHT_LEFT : AHT_END;
        case FULL: return AHT_FULL;
        case LEAVE: return AHT_LEFT;
        }
    }
}

int64_t aht_version(void) { return (int64_t)AHT_VERSION; }
int64_t aht_batch_size(void) { return (int64_t)sizeof(struct aht_batch); }
