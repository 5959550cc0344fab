/* check_matrix.c - the choices of `pgrun check`: --set parallel.tp=2,4 --set parallel.pp=1,8 stands
 * for four of them, each checked by itself. */
#include "check_report.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* One key and its values, as texts "KEY=VALUE". */
typedef struct axis {
    char *const *values;
    int64_t count;
} axis;

/* The end of the value at `text`: the next comma outside of quotes and braces, or the text's end.
 */
static const char *value_end(const char *text) {
    int depth = 0;
    for (; *text && (*text != ',' || depth > 0); text++) {
        depth += *text == '{' ? 1 : *text == '}' && depth > 0 ? -1 : 0;
        if (*text != '"' && *text != '\'')
            continue;
        char quote = *text++;
        for (; *text && *text != quote; text++)
            text += *text == '\\' && text[1];
        if (!*text)
            break;
    }
    return text;
}

/* Adds "KEY=VALUE" to the texts, which free() with the matrix. */
static pgr_status add_text(pgr_check_matrix *matrix, const char *set, size_t key, const char *value,
                           const char *end, pgr_error *error) {
    while (value < end && isspace((unsigned char)*value))
        value++;
    while (end > value && isspace((unsigned char)end[-1]))
        end--;
    if (value == end)
        return pgr_error_set(error, PGR_USAGE,
                             "--set %s: a value is missing; give KEY=VALUE, or several for several "
                             "checks, as in --set parallel.tp=2,4",
                             set);
    void *grown = realloc(matrix->texts, (size_t)(matrix->text_count + 1) * sizeof *matrix->texts);
    if (!grown)
        return pgr_error_set(error, PGR_LIMIT, "--set: out of memory");
    matrix->texts = grown;
    size_t length = (size_t)(end - value);
    char *text = malloc(key + 1 + length + 1);
    if (!text)
        return pgr_error_set(error, PGR_LIMIT, "--set: out of memory");
    memcpy(text, set, key + 1);
    memcpy(text + key + 1, value, length);
    text[key + 1 + length] = '\0';
    matrix->texts[matrix->text_count++] = text;
    return PGR_OK;
}

/* Splits one --set into its values. */
static pgr_status split(pgr_check_matrix *matrix, const char *set, pgr_error *error) {
    size_t key = strcspn(set, "=");
    const char *at = set + key; /* at the "=", then at each comma */
    pgr_status status = PGR_OK;
    while (status == PGR_OK && *at) {
        const char *end = value_end(at + 1);
        status = add_text(matrix, set, key, at + 1, end, error);
        at = end;
    }
    return status;
}

/* Writes the keys that have several values, as chosen: "parallel.tp=2, parallel.pp=8". */
static void write_label(pgr_check_choice *choice, const axis *axes) {
    size_t used = 0;
    for (int i = 0; i < choice->set_count && used < sizeof choice->label; i++)
        if (axes[i].count > 1)
            used += (size_t)snprintf(choice->label + used, sizeof choice->label - used, "%s%s",
                                     used ? ", " : "", choice->sets[i]);
    if (used >= sizeof choice->label)
        memcpy(choice->label + sizeof choice->label - 4, "...", 4);
    pgr_check_clean(choice->label);
}

/* Every value of an axis with every value of the others; the last one varies fastest. */
static pgr_status multiply(pgr_check_matrix *matrix, const axis *axes, int axis_count,
                           pgr_error *error) {
    enum { CHOICES_MAX = 4096 };
    int64_t count = 1;
    for (int i = 0; i < axis_count; i++) {
        count *= axes[i].count; /* no overflow: each is at most the length of an argument */
        if (count > CHOICES_MAX)
            return pgr_error_set(error, PGR_USAGE,
                                 "the values of --set make more than %d combinations; check them "
                                 "in several calls",
                                 CHOICES_MAX);
    }
    matrix->choices = calloc((size_t)count, sizeof *matrix->choices);
    if (!matrix->choices)
        return pgr_error_set(error, PGR_LIMIT, "--set: out of memory");
    matrix->count = count;
    for (int64_t c = 0; c < count; c++) {
        pgr_check_choice *choice = &matrix->choices[c];
        int64_t left = c;
        choice->set_count = axis_count;
        for (int i = axis_count - 1; i >= 0; i--) {
            choice->sets[i] = axes[i].values[left % axes[i].count];
            left /= axes[i].count;
        }
        write_label(choice, axes);
    }
    return PGR_OK;
}

/* A key that is set again counts with its last --set alone. */
static bool set_again(const pgr_options *options, int index) {
    size_t length = strcspn(options->sets[index], "=") + 1;
    for (int i = index + 1; i < options->set_count; i++)
        if (strncmp(options->sets[i], options->sets[index], length) == 0)
            return true;
    return false;
}

pgr_status pgr_check_matrix_create(const pgr_options *options, pgr_check_matrix *out,
                                   pgr_error *error) {
    pgr_check_matrix made = {0};
    int64_t firsts[PGR_VALUES_MAX + 1] = {0};
    axis axes[PGR_VALUES_MAX];
    int axis_count = 0;
    pgr_status status = PGR_OK;
    for (int i = 0; i < options->set_count && status == PGR_OK; i++) {
        if (set_again(options, i))
            continue;
        status = split(&made, options->sets[i], error);
        firsts[++axis_count] = made.text_count;
    }
    for (int i = 0; i < axis_count; i++)
        axes[i] = (axis){made.texts + firsts[i], firsts[i + 1] - firsts[i]};
    if (status == PGR_OK)
        status = multiply(&made, axes, axis_count, error);
    if (status == PGR_OK)
        *out = made;
    else
        pgr_check_matrix_free(&made);
    return status;
}

void pgr_check_matrix_free(pgr_check_matrix *matrix) {
    for (int64_t i = 0; i < matrix->text_count; i++)
        free(matrix->texts[i]);
    free(matrix->texts);
    free(matrix->choices);
    *matrix = (pgr_check_matrix){0};
}
