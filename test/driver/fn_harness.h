/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A virtio-net driver for tests of the function. It talks to the function through the link
 * only, as an operating system would: it finds the structures through the capabilities,
 * negotiates, lays out rings (test/mock) and kicks. Everything runs on the test's thread; the
 * function's pollers run on theirs.
 *
 * What is wrong on the device's side ends the test on the spot (cmocka's assertions); the
 * guests that it leaves behind are closed by guests_close(), the teardown of every test.
 */

#ifndef FN_HARNESS_H
#define FN_HARNESS_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include <vfn_net_function.h>

#include "mock_driver.h"

#define DIM(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n) (UINT64_C(1) << (n))

#define HDR_LEN	  12u /* struct virtio_net_hdr_mrg_rxbuf; see guest_hdr_len() */
#define MAX_FRAME 70000u
#define NO_VECTOR 0xffff

/* On a machine that does other things as well nothing is late before this. */
#define PATIENCE_MS 10000

#define STATUS_DRIVER	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
#define STATUS_FEATURES (STATUS_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)

/* Bus addresses: the guest's heap, and where tests map what is theirs. */
#define HEAP_AT 0x40000000
#define FREE_AT 0x4000000000

/* How a guest differs from the plainest one; all fields may be 0. */
struct guest_conf {
	bool no_msix;
	const char *name; /* "fn" */
	uint16_t pairs;	  /* 1 */
	enum vfn_wiring wiring;
	const char *peer;
	const char *ethdev;
	uint32_t gen; /* bytes of a frame, VFN_WIRING_GEN */
	uint32_t rate_mbps;
	uint16_t mtu;
	bool sleep;
	bool legacy; /* without VERSION_1 and RING_RESET */
	enum vfn_offloads offloads;
	unsigned int nb_cpus;
	unsigned int cpu[4];
	uint64_t features;     /* that the driver takes beside VERSION_1 and RING_RESET */
	uint32_t size;	       /* of every ring: 256 */
	uint32_t buf_len;      /* room of every chain: 2048 */
	unsigned int faults;   /* enum vfn_fault */
	const char *pool;      /* VFN_DMA_BOUNCE */
	bool kick_by_write;    /* doorbell registers instead of eventfds */
	uint16_t used_pairs;   /* set up, all unless given */
	bool files;	       /* memory that other processes could map */
	struct vfn_link *link; /* somebody else's function, that is reset in the end */
};

struct place {
	uint8_t bar;
	uint32_t offset;
	uint32_t length;
};

struct guest_queue {
	struct mock_driver drv;
	bool laid;
	int kick, call; /* eventfds, -1 where there is none */
};

struct guest {
	struct guest_conf conf;
	struct vfn_link *link;
	struct vfn_function *fn; /* NULL: somebody else's */
	struct place common, notify, isr, device, vendor;
	uint8_t msix; /* the capability's offset */
	struct mock_mem mem;
	uint64_t heap, heap_end;
	uint64_t features; /* negotiated */
	uint16_t nb_queues;
	struct guest_queue q[VFN_MAX_QUEUES];
	/* Told of what is found to be written by the function; may be NULL. */
	void (*found)(struct guest *g, uint64_t at, uint32_t len);
	struct guest *next;
};

/* A frame and its header, on its way out or in. */
struct frame {
	struct virtio_net_hdr_mrg_rxbuf hdr;
	uint32_t len;
	uint8_t data[MAX_FRAME];
};

/* Queue numbers of a pair. */
#define RXQ(pair) (2 * (pair))
#define TXQ(pair) (2 * (pair) + 1)

/* EAL for a test; extra arguments end with NULL. The calling thread may run on every CPU. */
int fn_eal_init(const char *first, ...);

/* ---- the function and its registers ---- */

/* The function alone, without a driver. */
int function_open(const struct guest_conf *conf, struct vfn_function **fn, struct vfn_link **link);
struct guest *guest_new(const struct guest_conf *conf);
struct guest *guest_open(const struct guest_conf *conf); /* new, started and running */
int guest_negotiate(struct guest *g, uint64_t features); /* 0, or -1: FEATURES_OK not taken */
void guest_start(struct guest *g); /* negotiate, set up every pair, DRIVER_OK */
void guest_driver_ok(struct guest *g);
void guest_master_on(struct guest *g);
void guest_msix_on(struct guest *g);
void guest_reset(struct guest *g);
void guest_close(struct guest *g);
int guests_close(void **state);
uint64_t guest_features(struct guest *g); /* offered */

uint32_t reg_get(struct guest *g, const struct place *p, uint32_t offset, size_t len);
int reg_set(struct guest *g, const struct place *p, uint32_t offset, size_t len, uint32_t v);
#define FIELD(type, f) offsetof(type, f), sizeof(((type *)NULL)->f)
#define CGET(g, f)     reg_get(g, &(g)->common, FIELD(struct vfn_common_cfg, f))
#define CSET(g, f, v)  reg_set(g, &(g)->common, FIELD(struct vfn_common_cfg, f), v)
#define VGET(g, f)     reg_get(g, &(g)->vendor, FIELD(struct vfn_vendor_cfg, f))
#define VSET(g, f, v)  reg_set(g, &(g)->vendor, FIELD(struct vfn_vendor_cfg, f), v)

uint64_t stat_of(struct guest *g, unsigned int queue, unsigned int stat);
/* Wait until a counter has reached a value; fails the test if it never does. */
void stat_wait(struct guest *g, unsigned int queue, unsigned int stat, uint64_t value);

/* Of the function's only poller. */
struct vfn_poller_stats poller_counters(struct guest *g);

/* ---- memory and rings ---- */

uint8_t *guest_map(struct guest *g, uint64_t iova, uint64_t len, uint32_t perm);
int guest_unmap(struct guest *g, uint64_t iova, uint64_t len);
uint64_t guest_alloc(struct guest *g, uint64_t len); /* from the heap, page aligned */

/* Bytes that a ring's three areas take, each on pages of its own. */
uint64_t ring_bytes(const struct guest *g);
/* Lay out an empty ring, at a bus address or (0) on the heap. */
void queue_lay(struct guest *g, unsigned int queue, uint64_t at, uint16_t start);
/* Write the ring's registers; true if the function enabled it. */
bool queue_enable(struct guest *g, unsigned int queue);
void queue_setup(struct guest *g, unsigned int queue);
void queue_reset(struct guest *g, unsigned int queue);
void queue_suspend(struct guest *g, unsigned int queue, bool suspend);
struct vringh_state queue_state(struct guest *g, unsigned int queue);

/* ---- frames ---- */

/* Bytes before each frame: without VERSION_1 and MRG_RXBUF num_buffers is not there (5.1.6.1). */
uint32_t guest_hdr_len(const struct guest *g);

/* Any header, any payload, in pieces of the given lengths (the rest in one); not published. */
int tx_post(struct guest *g, unsigned int queue, const struct frame *f, const uint32_t *piece,
	unsigned int nb_pieces);
/* The first len bytes of header and frame only, not published. */
int tx_post_bytes(struct guest *g, unsigned int queue, const struct frame *f, uint32_t len);
void queue_kick(struct guest *g, unsigned int queue);
void queue_kick_always(struct guest *g, unsigned int queue);
/* Post, publish, kick. */
void tx_send(struct guest *g, unsigned int queue, const struct frame *f);
/* Wait for n chains to come back, all of length 0. */
void tx_wait(struct guest *g, unsigned int queue, unsigned int n);
/* Post n receive chains of len bytes each in so many pieces, publish, kick. */
void rx_post(
	struct guest *g, unsigned int queue, unsigned int n, uint32_t len, unsigned int pieces);
/* Next frame, or false if none comes within so many milliseconds. */
bool rx_try(struct guest *g, unsigned int queue, struct frame *f, unsigned int ms);
void rx_wait(struct guest *g, unsigned int queue, struct frame *f);
/* Next used entry of any queue, or false. */
bool used_try(struct guest *g, unsigned int queue, struct mock_used *used, unsigned int ms);

/* ---- control queue ---- */

/* Post a command: readable bytes in pieces of step, then ack_len writable bytes. Returns its id. */
int command_post(struct guest *g, unsigned int queue, const void *cmd, uint32_t len, uint32_t step,
	uint32_t ack_len);
/* Tell how many pairs are used, where there is a control queue, and read it back. */
void guest_use_pairs(struct guest *g, uint16_t pairs);
uint16_t pairs_in_use(struct guest *g);
/* Have a command carried out; returns its answer. */
uint8_t command_on(struct guest *g, unsigned int queue, const void *cmd, uint32_t len);
#define COMMAND(g, queue, ...) \
	command_on(g, queue, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* A frame of any length whose bytes tell its number. */
void frame_make(struct frame *f, uint32_t number, uint32_t len);
/* Send, receive, compare every byte, give the transmit chain back. */
void frame_passes(struct guest *from, unsigned int txq, struct guest *to, unsigned int rxq,
	const struct frame *f);
void frames_equal(const struct frame *got, const struct frame *sent);

uint64_t now_ms(void);
void nap_us(unsigned int us);

/* ---- a poller iteration by iteration ---- */

/* EAL with a service core. */
int turns_eal_init(void);
/* From here on nobody but turns() runs the poller; control stands in for it where it must. */
void turns_take_over(void);
void turns(unsigned int n);
/* Teardown: closes the guests, too. */
int turns_give_back(void **state);

/* ---- tests that run for every kind of ring ---- */

struct shape {
	bool packed, event_idx, indirect, mergeable;
};
uint64_t shape_features(const struct shape *s);

struct shaped_test {
	const char *name;
	void (*fn)(const struct shape *shape);
};
/* What follows every shaped test: guests_close(), or something that calls it. */
extern int (*shaped_teardown)(void **state);
/* All shaped tests in all shapes, and the plain ones. */
int run_list(const char *group, const struct CMUnitTest *plain, unsigned int nb_plain,
	const struct shaped_test *shaped, unsigned int nb_shaped);

#define PLAIN(test) cmocka_unit_test_teardown(test, guests_close)
#define SHAPED(test) \
	{ \
#test, test \
	}

#endif /* FN_HARNESS_H */
