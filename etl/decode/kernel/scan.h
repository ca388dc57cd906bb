/* The scanner's interface: JSON text in, Arrow's own buffers out.
 *
 * Pure functions over buffers that the caller owns: no allocation, no globals, no I/O. The scanner
 * reads nothing outside [text, text + length) and writes nothing outside a buffer's stated size,
 * whatever the text is. etl/decode/kernel/__init__.py mirrors these structures.
 */
#ifndef AHT_SCAN_H
#define AHT_SCAN_H

#include <stdint.h>

/* The checksum of this file and scan.c, from the compiler's command line. */
#ifndef AHT_VERSION
#define AHT_VERSION 0
#endif

enum {
    AHT_STRINGS = 4,  /* segmentId, startReason, endReason, extras */
    AHT_INTEGERS = 5, /* sequence, startTimestamp, endTimestamp, insertTimestamp, handleTimeMillis */
    AHT_COLUMNS = AHT_STRINGS + AHT_INTEGERS,
    AHT_EXTRAS = 3,       /* the column of unknown fields, as a JSON object */
    AHT_MAX_DEPTH = 500,  /* deeper values are left */
    AHT_USUAL_DEPTH = 32, /* without AHT_DISTINCT, deeper values are left too: it limits how often
                             nested objects that never end are scanned again, once for each line */
    AHT_MAX_UNKNOWN = 128 /* rows with more unknown fields are left, unless AHT_DISTINCT is set */
};

/* Where in the text the next byte is: between two values, or in an array of values. */
enum aht_place { AHT_OUTSIDE = 0, AHT_ARRAY_BEGIN = 1, AHT_ARRAY_NEXT = 2 };

/* Why the scanner stopped at `position`. */
enum aht_stop {
    AHT_END = 0,  /* the text ends here, in the middle of a value perhaps: call again with more */
    AHT_FULL = 1, /* a buffer is full: take the rows and call again from here */
    AHT_LEFT = 2  /* what begins here, after white space, is for the reader in Python */
};

struct aht_batch {
    /* Buffers. Each holds `max_rows` values; offsets one more; a bitmap max_rows / 8 bytes. */
    int32_t *offsets[AHT_STRINGS];
    uint8_t *bytes[AHT_STRINGS];
    int64_t bytes_capacity[AHT_STRINGS];
    int64_t *integers[AHT_INTEGERS];
    /* Validity bitmaps: strings first, then integers. One is written only once its column has a null. */
    uint8_t *valid[AHT_COLUMNS];
    int64_t max_rows; /* a multiple of 8 */
    int64_t rows; /* in and out: set it to 0 to empty the buffers */
    int64_t nulls[AHT_COLUMNS];
    int64_t place;    /* an aht_place */
    int64_t position; /* in the text, always between two values */
};

int64_t aht_version(void);
int64_t aht_batch_size(void);

enum aht_flags {
    AHT_FINAL = 1,   /* the file ends with this text: a value that is cut off is left */
    AHT_DISTINCT = 2 /* no object has two equal keys: do not look for them */
};

/* Append rows to the batch, from `position` on, until the text ends, a buffer is full or a value is
 * left. The scanner takes an object only if Python's json module and the column rules
 * (etl/decode/reader.py) give exactly this row. In `extras` a nested object keeps both of two equal
 * keys, as it was written; JSON readers take the last.
 */
enum aht_stop aht_scan(struct aht_batch *batch, const uint8_t *text, int64_t length, int32_t flags);

#endif
