/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * librte_vhost as the driver sees it, played: connections that have a guest's memory, rings, log
 * and features without any socket. The test's thread, but for what the driver's operations read:
 * those may be called on another.
 */

#ifndef VHOST_PLAY_H
#define VHOST_PLAY_H

#include "blk_harness.h"
#include "vfn_drv.h"

#define PLAYS 2

/* A connection; its number is the vid. */
struct play {
	struct vfn_dev *dev;
	struct vfn_link_ops ops; /* of the link, where they are not as it has them */
	struct guest *g;
	uint64_t features;   /* negotiated, LOG_ALL included */
	uint64_t protocol;   /* protocol features: none */
	uint32_t nb_regions; /* in which the driver is told of the guest's memory: 5 */
	struct vringh_state base[VFN_MAX_QUEUES];
	uint8_t *log;
	int log_fd;
	uint64_t log_len;
	struct {
		int fd;
		uint8_t *map;
		uint64_t len;
	} logs[16]; /* all that there were: the driver may still have one mapped */
	unsigned int nb_logs;
	uint8_t *found; /* pages that the function has written to receive buffers, as log */
};
extern struct play plays[PLAYS];

/* Signalling this eventfd blocks; how often that was tried. */
extern int play_blocks;
extern unsigned int play_blocked;

struct play_conf {
	uint64_t features;
	enum vfn_lm lm;
	bool thread; /* the link does no jobs */
	bool sleep;
	bool doorbell;
	uint16_t pairs;
	uint32_t size, buf_len;
	unsigned int faults;
	enum vfn_wiring wiring;
	const char *peer;
	const struct disk_conf *disk; /* of that class; NULL: net */
};

/* A device and its guest, rings laid out, nothing started. */
struct play *play_open(int vid, const struct play_conf *conf);
void play_start(struct play *p); /* dev_conf with every ring ready */
void play_stop(struct play *p);	 /* dev_close */
int plays_close(void **state);
/* A new log, all zeros; 0: none. */
void play_log(struct play *p, uint64_t len);
/* A log that reaches as far as the guest's memory. */
uint64_t play_log_len(const struct play *p);
/* SET_FEATURES with or without LOG_ALL; may be called from another thread. */
void play_log_all(struct play *p, bool on);
bool play_logged(const struct play *p, uint64_t gpa);
/* Set or ask for a page in such a bitmap. */
void page_set(uint8_t *bitmap, uint64_t page);
bool page_get(const uint8_t *bitmap, uint64_t page);
uint64_t play_end(const struct play *p);
/* Where one of the regions ends and the next one begins. */
uint64_t play_border(const struct play *p);

#endif /* VHOST_PLAY_H */
