/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Runs a target without libFuzzer: the regressions, the seeds, and a fixed number of mutations
 * of them that are the same every time. Writes the seeds for libFuzzer, too. Any one thread.
 */

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz_seeds.h"

#define MAX_LEN	    65536
#define MAX_CORPUS  1024
#define EXECUTIONS  20000
#define MAX_SECONDS 20 /* for one input, on a slow and busy machine */
/* What a second thread does to an input is another thing each time. */
#define REPEATS	  (FUZZ_FORMAT == FUZZ_RAW ? 100 : 1)
#define MUTATIONS 4 /* of one input, at most */

static struct {
	uint8_t *data;
	size_t size;
} corpus[MAX_CORPUS];
static uint32_t nb_corpus;

static uint8_t now[MAX_LEN];
static size_t now_size;
static const char *now_name = "nothing";
static uint64_t mutate_seed;

/* Of the sanitizers' runtime, if there is one. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

/* Keeps the input that was run last; called on the way to the end. */
static void
keep(void)
{
	FILE *out = now_size > 0 ? fopen("crash-" FUZZ_NAME, "wb") : NULL;

	fprintf(stderr, FUZZ_NAME ": failed at %s", now_name);
	if (out != NULL && fwrite(now, 1, now_size, out) == now_size && fclose(out) == 0)
		fprintf(stderr, ", kept as crash-" FUZZ_NAME);
	fputc('\n', stderr);
}

static void
on_signal(int sig)
{
	signal(sig, SIG_DFL);
	if (sig == SIGALRM)
		fprintf(stderr, FUZZ_NAME ": no end after %d seconds\n", MAX_SECONDS);
	keep();
	raise(sig);
}

static void
run(const char *name)
{
	now_name = name;
	alarm(MAX_SECONDS);
	LLVMFuzzerTestOneInput(now, now_size);
	alarm(0);
	now_name = "a seed while it was recorded";
	now_size = 0;
}

static void
add(void *arg, const char *name, const uint8_t *data, size_t size)
{
	(void)arg;
	if (nb_corpus == MAX_CORPUS || size > MAX_LEN) {
		fprintf(stderr, FUZZ_NAME ": no room for %s\n", name);
		exit(1);
	}
	corpus[nb_corpus].data = malloc(size + 1);
	if (corpus[nb_corpus].data == NULL)
		abort();
	memcpy(corpus[nb_corpus].data, data, size);
	corpus[nb_corpus++].size = size;
	memcpy(now, data, size);
	now_size = size;
	run(name);
}

static void
write_seed(void *arg, const char *name, const uint8_t *data, size_t size)
{
	char path[4096];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", (const char *)arg, name);
	out = fopen(path, "wb");
	if (out == NULL || fwrite(data, 1, size, out) != size || fclose(out) != 0) {
		fprintf(stderr, FUZZ_NAME ": cannot write %s: %s\n", path, strerror(errno));
		exit(1);
	}
}

static void
run_file(const char *path, bool regression)
{
	static uint8_t data[MAX_LEN];
	FILE *in = fopen(path, "rb");
	uint32_t i;
	size_t size;

	if (in == NULL) {
		fprintf(stderr, FUZZ_NAME ": cannot read %s: %s\n", path, strerror(errno));
		exit(1);
	}
	size = fread(data, 1, sizeof(data), in);
	fclose(in);
	if (regression && (size < sizeof(struct fuzz_head) || data[0] != FUZZ_VERSION)) {
		fprintf(stderr, FUZZ_NAME ": %s is not of version %d: see doc/fuzzing.md\n", path,
			FUZZ_VERSION);
		exit(1);
	}
	add(NULL, path, data, size);
	for (i = 1; i < REPEATS; i++) {
		now_size = size;
		run(path);
	}
}

static uint32_t
run_directory(const char *dir)
{
	struct dirent **list;
	int i, n = scandir(dir, &list, NULL, alphasort);
	uint32_t done = 0;
	char path[4096];

	if (n < 0) {
		fprintf(stderr, FUZZ_NAME ": cannot read %s: %s\n", dir, strerror(errno));
		exit(1);
	}
	for (i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", dir, list[i]->d_name);
			run_file(path, true);
			done++;
		}
		free(list[i]);
	}
	free(list);
	return done;
}

/* What libFuzzer would do to some bytes. */
size_t
LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
	size_t i, n;

	if (size == 0)
		return 0;
	i = fuzz_random(&mutate_seed) % size;
	switch (fuzz_random(&mutate_seed) % 5) {
	case 0:
		data[i] ^= 1 << fuzz_random(&mutate_seed) % 8;
		break;
	case 1:
		data[i] = fuzz_random(&mutate_seed);
		break;
	case 2:
		data[i] += fuzz_random(&mutate_seed) % 9 - 4;
		break;
	case 3:
		n = fuzz_random(&mutate_seed) % (size - i);
		memmove(data + i, data + fuzz_random(&mutate_seed) % (size - n), n);
		break;
	case 4: /* longer or shorter by a byte */
		if (size == max_size || fuzz_random(&mutate_seed) % 2) {
			memmove(data + i, data + i + 1, size - i - 1);
			return size - 1;
		}
		memmove(data + i + 1, data + i, size - i);
		return size + 1;
	}
	return size;
}

static void
run_mutations(uint32_t executions, uint64_t seed)
{
	static uint8_t other[MAX_LEN];
	uint32_t i, k;

	for (i = 0; i < executions; i++) {
		uint32_t a = fuzz_random(&seed) % nb_corpus, b = fuzz_random(&seed) % nb_corpus;

		now_size = corpus[a].size;
		memcpy(now, corpus[a].data, now_size);
		mutate_seed = fuzz_random(&seed);
		if (fuzz_random(&seed) % 8 == 0) {
			memcpy(other, now, now_size);
			now_size = LLVMFuzzerCustomCrossOver(other, now_size, corpus[b].data,
				corpus[b].size, now, sizeof(now), fuzz_random(&seed));
		}
		for (k = fuzz_random(&seed) % MUTATIONS; k < MUTATIONS; k++)
			now_size = LLVMFuzzerCustomMutator(
				now, now_size, sizeof(now), fuzz_random(&seed));
		run("a mutation");
	}
}

static uint64_t
number(const char *option, const char *text)
{
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno != 0 || end == text || *end != '\0' || v > UINT32_MAX) {
		fprintf(stderr, FUZZ_NAME ": %s: %s is not a number up to %u\n", option, text,
			UINT32_MAX);
		exit(2);
	}
	return v;
}

static void
usage(FILE *out)
{
	fprintf(out,
		"usage: replay_" FUZZ_NAME " [--executions N] [--seed N] [FILE | DIRECTORY]...\n"
		"       replay_" FUZZ_NAME " --write-seeds DIRECTORY\n"
		"\n"
		"Runs the inputs in the files; with none, or with directories (regressions), also "
		"the\n"
		"seeds and N mutations of it all (%d). FUZZ_TRACE=1 in the environment tells "
		"inputs.\n",
		EXECUTIONS);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {{"executions", required_argument, NULL, 'n'},
		{"seed", required_argument, NULL, 's'},
		{"write-seeds", required_argument, NULL, 'w'}, {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	uint32_t executions = EXECUTIONS, regressions = 0, before;
	const char *dir = NULL;
	bool files = false;
	uint64_t seed = 1;
	struct stat st;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'n':
			executions = number("--executions", optarg);
			break;
		case 's':
			seed = number("--seed", optarg);
			break;
		case 'w':
			dir = optarg;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (dir != NULL) {
		fuzz_seeds(FUZZ_FORMAT, write_seed, (void *)(uintptr_t)dir);
		return 0;
	}
	signal(SIGALRM, on_signal);
	signal(SIGABRT, on_signal);
	if (__sanitizer_set_death_callback != NULL) {
		__sanitizer_set_death_callback(keep);
	} else {
		signal(SIGSEGV, on_signal);
		signal(SIGBUS, on_signal);
	}
	for (; optind < argc; optind++) {
		if (stat(argv[optind], &st) == 0 && S_ISDIR(st.st_mode)) {
			regressions += run_directory(argv[optind]);
		} else {
			run_file(argv[optind], false);
			files = true;
		}
	}
	if (files)
		return 0;
	before = nb_corpus;
	fuzz_seeds(FUZZ_FORMAT, add, NULL);
	run_mutations(executions, seed);
	printf(FUZZ_NAME ": %u regressions, %u seeds, %u mutations\n", regressions,
		nb_corpus - before, executions);
	for (before = 0; before < nb_corpus; before++)
		free(corpus[before].data);
	return 0;
}
