/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Random writes and reads of a disk with a record of what each sector has to hold: a sector
 * carries its number and the generation of the write, in all of its words. A write that has ended
 * is there; one that has not left the old generation or its own, whole. The record may be in a
 * file, so that it outlives who keeps it. How a request is carried out is the includer's. One
 * thread.
 */

#ifndef BLOCKS_H
#define BLOCKS_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SECTOR	   512
#define WORDS	   (SECTOR / 8)
#define MOST	   64 /* sectors of a request */
#define MAX_SLOTS  256
#define HOT	   4096 /* sectors that half of the requests are for */
#define RETRY_US   2000
#define SYNC_EVERY 64

enum kind { READ, WRITE, SYNC };

struct slot {
	enum kind kind;
	uint64_t sector;
	unsigned int nb; /* sectors */
	uint8_t *buf;
	bool used;
};

/* Of a sector; generation 0 is zeroes. */
struct word {
	uint32_t ended; /* the last write that has */
	uint32_t begun; /* the one that has not, or 0 */
};

struct record {
	uint64_t nb_sectors;
	uint32_t generation; /* of the last write */
	uint32_t unused;
	struct word word[];
};

/* The includer's. All: 0 or more, or a negative errno. */
static int io_submit_slot(struct slot *s);
/* Wait for one at least, for a while; io_ended() is called for each. */
static int io_wait(void);

static struct record *rec;
static uint8_t *locked; /* sectors that a request is for */
static struct slot slots[MAX_SLOTS];
static unsigned int nb_slots, nb_out;
static unsigned int unit = 1; /* sectors, of which requests are multiples */
static bool errors_are_expected;
static uint64_t nb_done[3], nb_errors, nb_wrong;
static uint64_t state = 88172645463325252u;
static volatile sig_atomic_t stop;

static inline uint64_t
mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdu;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53u;
	return x ^ x >> 33;
}

static uint64_t
choose(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

static uint64_t
pattern(uint64_t sector, uint32_t generation, unsigned int i)
{
	if (generation == 0)
		return 0;
	return i == 0 ? sector << 32 | generation : mix(sector << 32 ^ generation) + i;
}

/* Is the sector as that write left it? */
static bool
is_generation(const uint8_t *buf, uint64_t sector, uint32_t generation)
{
	uint64_t words[WORDS];
	unsigned int i;

	memcpy(words, buf, SECTOR);
	for (i = 0; i < WORDS; i++)
		if (words[i] != pattern(sector, generation, i))
			return false;
	return true;
}

static void
check_sector(const uint8_t *buf, uint64_t sector)
{
	struct word *w = &rec->word[sector];
	uint64_t first;

	if (is_generation(buf, sector, w->ended)) {
		w->begun = 0;
		return;
	}
	/* Of who was killed; from now on it is this one. */
	if (w->begun != 0 && is_generation(buf, sector, w->begun)) {
		w->ended = w->begun;
		w->begun = 0;
		return;
	}
	memcpy(&first, buf, sizeof(first));
	if (nb_wrong++ < 10)
		fprintf(stderr,
			"sector %llu: has sector %llu, generation %llu%s; ended %u, begun %u\n",
			(unsigned long long)sector, (unsigned long long)(first >> 32),
			(unsigned long long)(first & UINT32_MAX),
			is_generation(buf, first >> 32, first) ? "" : ", torn", w->ended, w->begun);
}

/* ---- a record ---- */

/* In a file, or in memory (NULL). Of a new one all sectors are zeroes. */
static void
record_open(const char *path, uint64_t nb_sectors)
{
	size_t size = sizeof(*rec) + nb_sectors * sizeof(struct word);
	int fd = -1, flags = MAP_SHARED | MAP_ANONYMOUS;

	if (path != NULL) {
		flags = MAP_SHARED;
		fd = open(path, O_RDWR | O_CREAT, 0600);
		if (fd < 0 || ftruncate(fd, size) < 0) {
			perror(path);
			exit(2);
		}
	}
	rec = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
	locked = calloc(nb_sectors, 1);
	if (rec == MAP_FAILED || locked == NULL) {
		perror("record");
		exit(2);
	}
	if (fd >= 0)
		close(fd);
	rec->nb_sectors = nb_sectors;
}

/* ---- requests ---- */

static void
set_locked(const struct slot *s, bool on)
{
	memset(locked + s->sector, on, s->nb);
}

static bool
find_place(struct slot *s)
{
	uint64_t nb = rec->nb_sectors, first;
	unsigned int tries, i;

	for (tries = 0; tries < 16; tries++) {
		s->nb = unit * (1 + choose((choose(2) ? MOST : 8) / unit));
		first = choose((choose(2) && nb > HOT ? HOT : nb) / unit) * unit;
		if (first + s->nb > nb)
			continue;
		for (i = 0; i < s->nb && !locked[first + i]; i++)
			;
		if (i < s->nb)
			continue;
		s->sector = first;
		return true;
	}
	return false;
}

static void
submit(struct slot *s)
{
	int ret = io_submit_slot(s);

	if (ret < 0) {
		fprintf(stderr, "a request cannot be made: %s\n", strerror(-ret));
		exit(2);
	}
}

static bool
start(struct slot *s)
{
	unsigned int i, w;

	s->kind = choose(SYNC_EVERY) == 0 ? SYNC : choose(3) == 0 ? READ : WRITE;
	if (s->kind == SYNC)
		s->nb = 0;
	else if (!find_place(s))
		return false;
	set_locked(s, true);
	if (s->kind == WRITE) {
		rec->generation++;
		for (i = 0; i < s->nb; i++) {
			uint64_t *words = (uint64_t *)(s->buf + (size_t)i * SECTOR);

			for (w = 0; w < WORDS; w++)
				words[w] = pattern(s->sector + i, rec->generation, w);
			rec->word[s->sector + i].begun = rec->generation;
		}
	} else if (s->kind == READ) {
		memset(s->buf, 0xee, (size_t)s->nb * SECTOR);
	}
	s->used = true;
	nb_out++;
	submit(s);
	return true;
}

/* A request has ended, with 0 or a negative errno. */
static void
io_ended(struct slot *s, int error)
{
	unsigned int i;

	if (error != 0) {
		nb_errors++;
		if (!errors_are_expected)
			fprintf(stderr, "%s of %u sectors at %llu: %s\n",
				s->kind == READ		 ? "read" :
					s->kind == WRITE ? "write" :
							   "sync",
				s->nb, (unsigned long long)s->sector, strerror(-error));
		if (errors_are_expected && !stop) {
			usleep(RETRY_US);
			submit(s);
			return;
		}
	} else {
		nb_done[s->kind]++;
	}
	for (i = 0; i < s->nb && error == 0; i++) {
		struct word *w = &rec->word[s->sector + i];

		if (s->kind == READ) {
			check_sector(s->buf + (size_t)i * SECTOR, s->sector + i);
		} else {
			w->ended = w->begun;
			w->begun = 0;
		}
	}
	set_locked(s, false);
	s->used = false;
	nb_out--;
}

static void
drain(void)
{
	while (nb_out > 0 && io_wait() >= 0)
		;
}

/* Every sector is read and looked at. */
static void
check_all(void)
{
	uint64_t at;

	for (at = 0; at < rec->nb_sectors; at += slots[0].nb) {
		struct slot *s = &slots[0];

		s->kind = READ;
		s->sector = at;
		s->nb = rec->nb_sectors - at < MOST ? rec->nb_sectors - at : MOST;
		s->used = true;
		nb_out = 1;
		submit(s);
		drain();
	}
}

static void
on_signal(int number)
{
	(void)number;
	stop = 1;
}

/*
 * Keep so many requests under way for so many seconds, or (0) until SIGTERM; look at all sectors
 * before and after that.
 */
static void
run(unsigned int depth, uint64_t seed, unsigned int seconds)
{
	unsigned int i;

	state ^= mix(seed + 1);
	signal(SIGTERM, on_signal);
	signal(SIGALRM, on_signal);
	check_all();
	printf("running\n");
	fflush(stdout);
	alarm(seconds);
	while (!stop && nb_wrong == 0 && (nb_errors == 0 || errors_are_expected)) {
		for (i = 0; i < depth; i++)
			if (!slots[i].used && !start(&slots[i]))
				break;
		if (io_wait() < 0)
			break;
	}
	stop = 1;
	drain();
	check_all();
}

static void
slots_init(unsigned int nb, uint8_t *memory)
{
	for (nb_slots = 0; nb_slots < nb; nb_slots++)
		slots[nb_slots].buf = memory + (size_t)nb_slots * MOST * SECTOR;
}

/* Exit status. */
static int
result(void)
{
	printf("%llu reads, %llu writes, %llu syncs, %llu errors, %llu sectors wrong\n",
		(unsigned long long)nb_done[READ], (unsigned long long)nb_done[WRITE],
		(unsigned long long)nb_done[SYNC], (unsigned long long)nb_errors,
		(unsigned long long)nb_wrong);
	return nb_wrong > 0 || (nb_errors > 0 && !errors_are_expected) || nb_out > 0;
}

#endif /* BLOCKS_H */
