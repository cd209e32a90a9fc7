#include "trace.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "config.h"
#include "message.h"
#include "trace_device.h"

static bool report(const char *path, const char *reason) {
    message_print("%s: %s", path, reason);
    return false;
}

/* The whole file with a 0 after it; NULL with errno set. */
static char *read_file(const char *path, size_t *length) {
    struct stat status;
    FILE *file = fopen(path, "rbe");
    if (!file) return NULL;
    char *text = NULL;
    if (fstat(fileno(file), &status) != 0) goto done;
    if (!S_ISREG(status.st_mode)) {
        errno = EINVAL;
        goto done;
    }
    text = malloc((size_t)status.st_size + 1);
    if (!text) goto done;
    *length = fread(text, 1, (size_t)status.st_size, file);
    text[*length] = 0;
done:
    fclose(file);
    return text;
}

/* "12.4" or 12040 as NVML's 12040. */
static int read_cuda_version(const struct section *top) {
    const struct json *value = config_get(top, "cuda_version");
    char text[20];
    unsigned major, minor;
    int end = 0;
    if (!value) return 12080;
    if (value->type == JSON_NUMBER)
        return (int)config_number(top, "cuda_version", 0, (struct range){1000, 1000000});
    config_string(top, "cuda_version", "12.8", text, sizeof text);
    if (sscanf(text, "%3u.%2u%n", &major, &minor, &end) == 2 && !text[end])
        return (int)(major * 1000 + minor * 10);
    config_fault(top->config, "", "cuda_version", value, "a version as \"12.4\" or 12040");
    return 0;
}

static void check_uuids(struct config *config, const struct trace *trace, const struct json *at) {
    for (unsigned i = 0; i < trace->count; i++)
        for (unsigned j = i + 1; j < trace->count; j++)
            if (strcmp(trace->devices[i].uuid, trace->devices[j].uuid) == 0)
                config_fault(config, "devices", "uuid", at, "a different uuid for each device");
}

static void read_devices(struct section *top, struct trace *trace) {
    struct config *config = top->config;
    const struct json *list = config_get(top, "devices");
    if (!list || list->type != JSON_ARRAY || list->as.list.count > MAX_DEVICES) {
        config_fault(config, "", "devices", list ? list : top->object,
                     "a list \"devices\" of at most 64 objects");
        return;
    }
    trace->devices = calloc(list->as.list.count + 1, sizeof *trace->devices);
    if (!trace->devices) {
        config_fault(config, "", "devices", list, "enough memory for them");
        return;
    }
    for (const struct json *item = list->as.list.first; item; item = item->next) {
        struct section section = {.config = config, .object = item};
        snprintf(section.path, sizeof section.path, "devices[%u]", trace->count);
        if (item->type != JSON_OBJECT) {
            config_fault(config, "", section.path, item, "an object");
            return;
        }
        trace_read_device(&section, top, &trace->devices[trace->count], trace->count);
        trace->count++;
        if (config->fault[0]) return;
    }
    check_uuids(config, trace, list);
}

static void read_trace(struct config *config, const struct json *root, struct trace *trace) {
    static const char *const known[] = {"devices",      "driver_version", "nvml_version",
                                        "cuda_version", "permission",     NULL};
    struct section top = {.config = config, .object = root};
    if (root->type != JSON_OBJECT) {
        config_fault(config, "", "", root, "an object with a list \"devices\"");
        return;
    }
    config_warn_unknown(&top, known);
    config_string(&top, "driver_version", "570.00.00", trace->driver_version,
                  sizeof trace->driver_version);
    config_string(&top, "nvml_version", "12.570.00.00", trace->nvml_version,
                  sizeof trace->nvml_version);
    trace->cuda_version = read_cuda_version(&top);
    read_devices(&top, trace);
}

bool trace_load(const char *path, struct trace *trace) {
    struct config config = {.file = path};
    struct json_document document;
    struct json_error error;
    size_t length = 0;
    *trace = (struct trace){0};
    char *text = read_file(path, &length);
    if (!text) return report(path, strerror(errno));
    if (!json_parse(text, length, &document, &error)) {
        snprintf(config.fault, sizeof config.fault, "offset %zu: not valid JSON: %s", error.offset,
                 error.reason);
    } else {
        read_trace(&config, document.root, trace);
        json_free(&document);
    }
    free(text);
    if (!config.fault[0]) return true;
    trace_free(trace);
    return report(path, config.fault);
}

void trace_free(struct trace *trace) {
    for (unsigned i = 0; i < trace->count; i++) device_free(&trace->devices[i]);
    free(trace->devices);
    *trace = (struct trace){0};
}
