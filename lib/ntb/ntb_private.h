/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the files of the simulated bridge share. Each side has a file of memory per link: a page of
 * what stands for its bridge's registers, and the window in behind it. The peer maps both.
 */

#ifndef NTB_PRIVATE_H
#define NTB_PRIVATE_H

#include <pthread.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "ntb_sim.h"

/* The page before a window: the registers of the bridge of whoever has that. Atomic. */
struct sim_registers {
	uint32_t scratchpad[NTB_SCRATCHPADS];
	uint32_t doorbells;
	uint32_t mask;
};
#define SIM_WINDOW_AT NTB_SIM_ALIGN

/* Of the socket; a longer one stands in for it until it is listened on. */
#define SIM_PATH_SIZE 84

/* On its way for latency_us. */
struct sim_posted {
	STAILQ_ENTRY(sim_posted) next;
	uint64_t due_ns;
	enum ntb_sim_loss kind;
	uint64_t at; /* in the window, or number of a scratchpad */
	uint32_t value;
	size_t len;
	uint8_t data[];
};

enum sim_state {
	SIM_OFF,     /* disabled */
	SIM_SEEKING, /* for the peer */
	SIM_UP,
	SIM_DOWN, /* went down */
};

struct sim {
	struct ntb ntb;
	char name[64];
	char path[SIM_PATH_SIZE];
	uint64_t limit;
	uint64_t latency_ns;
	bool mapped;
	void (*log)(void *arg, const char *text);
	void *log_arg;

	/* Address space for good, what is mapped there is for one link. */
	uint8_t *local;	 /* our memory */
	uint8_t *remote; /* the peer's, or what leads nowhere */
	int peer_fd;	 /* rings the peer's doorbell_fd; for good, too */
	int self_fd;	 /* rings ours */

	pthread_t thread;
	pthread_mutex_t lock; /* of what follows, up to the end of the group */
	pthread_cond_t changed;
	enum sim_state state; /* atomic for who reads it without */
	bool disable, quit;
	STAILQ_HEAD(, sim_posted) posted;
	size_t posted_bytes;

	/* The thread's. */
	int wake_fd, listen_fd, conn_fd;
	dev_t dev; /* of the socket's file */
	ino_t ino;
	int memory_fd; /* of local; enable sets it, while the thread has no business with it */
	uint64_t deadline_ns;
	char said[192];

	/* Atomic. */
	uint32_t lose[NTB_SIM_NB_LOSSES];
	struct ntb_stats stats;
};

static inline struct sim_registers *
sim_registers(uint8_t *memory)
{
	return (struct sim_registers *)memory;
}

uint64_t sim_now_ns(void);

/* ntb_sim.c: the thread has found the peer, or lost it. */
int sim_map_peer(struct sim *s, int fd, uint64_t bus, uint64_t size);
void sim_unmap_peer(struct sim *s);
/* What is due arrives. When the next is, 0: nothing is on its way. */
uint64_t sim_arrive(struct sim *s);

/* ntb_meet.c: the thread. */
void *sim_thread(void *arg);

#endif /* NTB_PRIVATE_H */
