/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The result of `vfn-bench vring` for programs. Runs on the main thread. */

#include <stdlib.h>
#include <string.h>

#include "rows.h"

static void
write_string(FILE *out, const char *key, const char *s)
{
	fprintf(out, "\"%s\": \"", key);
	for (; *s != '\0'; s++)
		if ((unsigned char)*s >= ' ') {
			if (*s == '"' || *s == '\\')
				fputc('\\', out);
			fputc(*s, out);
		}
	fputs("\"", out);
}

static void
write_cpu_model(FILE *out)
{
	FILE *info = fopen("/proc/cpuinfo", "r");
	char *line = NULL, *value;
	const char *model = "unknown";
	size_t room = 0;

	while (info != NULL && getline(&line, &room, info) > 0) {
		value = strchr(line, ':');
		if (strncmp(line, "model name", 10) == 0 && value != NULL) {
			model = value + 1 + strspn(value + 1, " ");
			break;
		}
	}
	write_string(out, "cpu_model", model);
	free(line);
	if (info != NULL)
		fclose(info);
}

static void
write_rows(const struct table *t, bool dirty, FILE *out)
{
	const char *before = "\n";
	uint32_t i;
	unsigned int by;

	for (i = 0; i < t->nb_rows; i++) {
		const struct row *row = &t->row[i];
		const struct shape *s = &shapes[row->at[BY_SHAPE]];

		if (s->write != dirty)
			continue;
		fprintf(out, "%s    {", before);
		for (by = 0; by < BY_LOG; by++) {
			write_string(out, dimension_names[by], row_name(row, by));
			fputs(", ", out);
		}
		if (dirty)
			fprintf(out, "\"bytes\": %u, \"log\": %s, ", s->len,
				row->at[BY_LOG] == LOG_ON ? "true" : "false");
		fprintf(out, "\"ns_per_chain\": %.3f, \"min\": %.3f, \"max\": %.3f}", row->ns,
			row->min, row->max);
		before = ",\n";
	}
}

void
json_write(const struct table *t, FILE *out)
{
	const char *before = "";
	unsigned int i;

	fputs("{\n  ", out);
	write_string(out, "library_version", BENCH_VERSION);
	fputs(",\n  ", out);
	write_cpu_model(out);
	fputs(",\n  ", out);
	write_string(out, "compiler", BENCH_COMPILER);
	fputs(",\n  ", out);
	write_string(out, "flags", BENCH_FLAGS);
	fputs(",\n  \"variant_flags\": {", out);
	for (i = 0; value_names[BY_VARIANT][i] != NULL; i++) {
		if (variants[i] == NULL)
			continue;
		fputs(before, out);
		write_string(out, variants[i]->name, variants[i]->flags);
		before = ", ";
	}
	fprintf(out, "},\n  \"cpu\": %d,\n  \"clock_per_ns\": %.4f,\n  \"event_idx\": true,\n",
		t->set.cpu, t->clock.per_ns);
	fprintf(out,
		"  \"ring_size\": %u,\n  \"batch\": %u,\n  \"windows\": %u,\n  \"laps\": %u,\n",
		t->set.ring_size, t->set.burst, t->set.windows, t->set.laps);
	fputs("  \"rows\": [", out);
	write_rows(t, false, out);
	fputs("\n  ],\n  \"dirty_log\": [", out);
	write_rows(t, true, out);
	fputs("\n  ]\n}\n", out);
}
