/* libFuzzer's target for the scanner; tests/decode/kernel/__main__.py builds and runs it.
 *
 * Each buffer and each text is an allocation of its own and of the exact size, so that
 * AddressSanitizer sees each access outside one. The text is scanned whole and in pieces, with
 * buffers that are full after every few rows: both must give the same rows.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../etl/decode/kernel/scan.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "broken promise, line %d: %s\n", __LINE__, #condition);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { MOST_BYTES = 1 << 20, MOST_CUT_BYTES = 600 };

static void *allocate(size_t size) {
    void *memory = malloc(size ? size : 1);
    CHECK(memory);
    memset(memory, 0xa5, size); /* nothing may depend on what a buffer held before */
    return memory;
}

static void make(struct aht_batch *batch, int64_t rows, int64_t capacity) {
    memset(batch, 0, sizeof *batch);
    batch->max_rows = rows;
    for (int i = 0; i < AHT_STRINGS; i++) {
        batch->offsets[i] = allocate((size_t)(rows + 1) * 4);
        batch->bytes[i] = allocate((size_t)capacity);
        batch->bytes_capacity[i] = capacity;
    }
    for (int i = 0; i < AHT_INTEGERS; i++) batch->integers[i] = allocate((size_t)rows * 8);
    for (int i = 0; i < AHT_COLUMNS; i++) batch->valid[i] = allocate((size_t)rows / 8);
}

static void release(struct aht_batch *batch) {
    for (int i = 0; i < AHT_STRINGS; i++) free(batch->offsets[i]), free(batch->bytes[i]);
    for (int i = 0; i < AHT_INTEGERS; i++) free(batch->integers[i]);
    for (int i = 0; i < AHT_COLUMNS; i++) free(batch->valid[i]);
}

static void add(uint64_t *digest, const void *data, size_t size) {
    for (const uint8_t *at = data; size--; at++) *digest = (*digest ^ *at) * 1099511628211u;
}

static int is_present(const struct aht_batch *batch, int column, int64_t row) {
    return !batch->nulls[column] || (batch->valid[column][row / 8] >> (row % 8) & 1);
}

/* Add all rows to the digest, check what is promised of them, and empty the batch. */
static void take(struct aht_batch *batch, uint64_t *digest, int64_t *rows) {
    int64_t nulls[AHT_COLUMNS] = {0};
    CHECK(batch->rows <= batch->max_rows);
    for (int64_t row = 0; row < batch->rows; row++) {
        for (int i = 0; i < AHT_COLUMNS; i++) {
            uint8_t present = (uint8_t)is_present(batch, i, row);
            add(digest, &present, 1);
            nulls[i] += !present;
            if (i < AHT_STRINGS) {
                int32_t begin = batch->offsets[i][row], end = batch->offsets[i][row + 1];
                CHECK(0 <= begin && begin <= end && end <= batch->bytes_capacity[i]);
                CHECK(present || begin == end);
                add(digest, batch->bytes[i] + begin, (size_t)(end - begin));
            } else {
                CHECK(present || !batch->integers[i - AHT_STRINGS][row]);
                add(digest, &batch->integers[i - AHT_STRINGS][row], 8);
            }
        }
        CHECK(is_present(batch, 0, row)); /* no row without segmentId */
    }
    for (int i = 0; i < AHT_COLUMNS; i++) CHECK(nulls[i] == batch->nulls[i]);
    *rows += batch->rows;
    batch->rows = 0;
}

/* Return where the value begins that was left: behind what may stand in front of one. */
static int64_t begin_of_value(const uint8_t *text, int64_t at, int64_t length, int64_t place) {
    for (;; at++) {
        if (at == length) return at;
        if (text[at] == ',' && place == AHT_ARRAY_NEXT)
            place = AHT_ARRAY_BEGIN;
        else if (place == AHT_OUTSIDE && length - at >= 3 && !memcmp(text + at, "\xef\xbb\xbf", 3))
            at += 2;
        else if (!strchr(" \t\r\n", text[at]) || !text[at])
            return at;
    }
}

static void make_larger(struct aht_batch *batch) {
    int64_t rows = batch->max_rows, capacity = 4 * batch->bytes_capacity[0] + 64;
    int64_t place = batch->place, position = batch->position;
    release(batch);
    make(batch, rows, capacity);
    batch->place = place;
    batch->position = position;
}

/* Scan a text in pieces; what is left is passed over to the next line. Returns a digest. */
static uint64_t scan(const uint8_t *text, int64_t length, int64_t piece, int64_t max_rows,
                     int64_t capacity, int32_t flags, int64_t *rows) {
    struct aht_batch batch;
    uint64_t digest = 14695981039346656037u;
    int64_t begin = 0, end = piece < length ? piece : length; /* what is in memory */
    make(&batch, max_rows, capacity);
    *rows = 0;
    for (;;) {
        uint8_t *window = allocate((size_t)(end - begin));
        if (end > begin) memcpy(window, text + begin, (size_t)(end - begin));
        int64_t before = batch.position;
        enum aht_stop stop = aht_scan(&batch, window, end - begin,
                                      (end == length ? AHT_FINAL : 0) | flags);
        free(window);
        CHECK(before <= batch.position && batch.position <= end - begin);
        if (stop == AHT_FULL) {
            if (batch.rows) take(&batch, &digest, rows);
            else if (batch.bytes_capacity[0] < MOST_BYTES) make_larger(&batch);
            else break;
            continue;
        }
        begin += batch.position;
        batch.position = 0;
        if (stop == AHT_LEFT) {
            take(&batch, &digest, rows); /* so that the digest is of rows and places in order */
            begin = begin_of_value(text, begin, length, batch.place);
            add(&digest, &begin, sizeof begin);
            if (batch.place == AHT_OUTSIDE && begin < length && text[begin] == '[') {
                batch.place = AHT_ARRAY_BEGIN; /* go into an array, as the reader does */
                if (end < ++begin) end = begin;
                continue;
            }
            const uint8_t *line_end = memchr(text + begin, '\n', (size_t)(length - begin));
            begin = line_end ? line_end - text + 1 : length;
            if (end < begin) end = begin;
            batch.place = AHT_OUTSIDE;
        } else if (end < length) {
            end += piece;
            if (end > length) end = length;
        } else {
            break;
        }
    }
    take(&batch, &digest, rows);
    release(&batch);
    return digest;
}

/* The first four bytes say how: the size of pieces, of the buffers, flags. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4) return 0;
    const uint8_t *text = data + 4;
    int64_t length = (int64_t)size - 4, rows, rows_again;
    int32_t flags = data[3] & 1 ? AHT_DISTINCT : 0;
    uint64_t whole = scan(text, length, length ? length : 1, 256, 2 * length + 64, flags, &rows);
    uint64_t again = scan(text, length, 1 + data[0], 8 * (1 + data[1] % 4), data[2], flags, &rows_again);
    CHECK(rows == rows_again && whole == again);
    if (data[3] & 2 && length <= MOST_CUT_BYTES) /* cut at every byte */
        for (int64_t cut = 0; cut < length; cut++) scan(text, cut, cut + 1, 8, 64, flags, &rows);
    return 0;
}

#ifdef STANDALONE
/* Without libFuzzer: run the target on files, and print a digest of the rows of all of them. */
int main(int count, char **names) {
    static uint8_t data[MOST_BYTES];
    uint64_t digest = 0;
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        CHECK(file);
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
        int64_t length = (int64_t)size, rows;
        digest = digest * 31 + scan(data, length, length, 256, 2 * length + 64, 0, &rows);
    }
    printf("%016llx\n", (unsigned long long)digest);
    return 0;
}
#endif
