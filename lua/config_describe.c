/* config_describe.c - what a key takes, in words, for messages and for help. */
#include "config_reader.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

static void describe_bound(double bound, char *text, size_t bytes) {
    if (bound == 0x1p40)
        snprintf(text, bytes, "2^40");
    else
        snprintf(text, bytes, "%.15g", bound);
}

static void describe_integer(const pgr_key *key, const char *noun, char *text, size_t bytes) {
    char low[32], high[32];
    describe_bound(key->minimum, low, sizeof low);
    describe_bound(key->maximum, high, sizeof high);
    if (key->maximum >= 0x1p63)
        snprintf(text, bytes, "%s >= %s", noun, low);
    else
        snprintf(text, bytes, "%s from %s to %s", noun, low, high);
}

static void describe_number(const pgr_key *key, char *text, size_t bytes) {
    if (key->minimum > DBL_MIN)
        snprintf(text, bytes, "a number from %g to %g", key->minimum, key->maximum);
    else
        snprintf(text, bytes, "a number %s, up to %g", key->minimum == DBL_MIN ? "> 0" : ">= 0",
                 key->maximum);
}

/* "a", "b" or "c" */
static void describe_choices(const pgr_key *key, const char *before, char *text, size_t bytes) {
    char name[PGR_NAME_MAX];
    int64_t count = 1, first = 0;
    for (const char *bar = strchr(key->choices, '|'); bar; bar = strchr(bar + 1, '|'))
        count++;
    pgr_key_choice_name(key, 0, name);
    first = name[0] == '\0'; /* not given, by no name */
    size_t used = (size_t)snprintf(text, bytes, "%s", before);
    for (int64_t i = first; i < count && used < bytes; i++) {
        pgr_key_choice_name(key, i, name);
        const char *joint = i == first ? "" : i + 1 == count ? " or " : ", ";
        used += (size_t)snprintf(text + used, bytes - used, "%s\"%s\"", joint, name);
    }
}

void pgr_key_describe(const pgr_key *key, char *text, size_t bytes) {
    switch (key->type) {
    case PGR_KEY_SECTION:
        snprintf(text, bytes, "a table");
        break;
    case PGR_KEY_INTEGER:
        describe_integer(key, "an integer", text, bytes);
        break;
    case PGR_KEY_NUMBER:
        describe_number(key, text, bytes);
        break;
    case PGR_KEY_BOOLEAN:
        snprintf(text, bytes, "true or false");
        break;
    case PGR_KEY_CHOICE:
        describe_choices(key, "", text, bytes);
        break;
    case PGR_KEY_STRING:
        snprintf(text, bytes, "a string of 1 to %d bytes", PGR_NAME_MAX - 1);
        break;
    case PGR_KEY_INTEGER_LIST:
        describe_integer(key, "a list of integers", text, bytes);
        break;
    case PGR_KEY_PATTERN:
        describe_integer(key, "an integer", text, bytes);
        snprintf(text + strlen(text), bytes - strlen(text), ", or a list of 0 and 1");
        break;
    case PGR_KEY_CHOICE_LIST:
        describe_choices(key, "a list of ", text, bytes);
        break;
    case PGR_KEY_NAME_LIST:
        if (key->choices)
            describe_choices(key, "a list of ", text, bytes);
        else
            snprintf(text, bytes, "a list of names");
        break;
    case PGR_KEY_PADDING_RULE:
        snprintf(text, bytes, "\"megatron\", ");
        describe_integer(key, "an integer", text + strlen(text), bytes - strlen(text));
        snprintf(text + strlen(text), bytes - strlen(text), ", or a function");
        break;
    case PGR_KEY_GRID:
        snprintf(text, bytes, "a list such as { {\"tp\", 2}, {\"dp\"} }");
        break;
    case PGR_KEY_VIEWS:
        snprintf(text, bytes, "a table such as { expert = { {\"ep\", 8}, {\"dp\"} } }");
        break;
    case PGR_KEY_NCCL:
        snprintf(text, bytes, "a table such as { tp = { max_ctas = 8 } }");
        break;
    case PGR_KEY_FUNCTION:
        snprintf(text, bytes, "a function");
        break;
    }
}
