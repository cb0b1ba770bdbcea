/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The driver of the conformance tests: a second opinion on what virtio 1.3 asks of a device. It
 * has nothing but a struct vfn_link, finds every structure through the capabilities, lays out
 * rings of its own and believes a register when it reads back. It shares no code with the drivers
 * in drivers/, and none with test/mock.
 *
 * Everything runs on the test's thread. What is wrong on the device's side ends the check on the
 * spot (cmocka's assertions).
 */

#ifndef CONFORMANCE_DEVICE_H
#define CONFORMANCE_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include <vfn_link.h>
#include <vfn_regs.h>

#define DIM(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n) (UINT64_C(1) << (n))

/* What the headers of older kernels do not have (6). */
#define F_NOTIFICATION_DATA 38
#define F_NOTIF_CONFIG_DATA 39
#define F_RING_RESET	    40
#define F_ADMIN_VQ	    41
#define QUEUE_NOTIF_DATA    56, 2 /* queue_notif_config_data: place and width (4.1.4.3) */
#define QUEUE_RESET	    58, 2
#define COMMON_CFG_SIZE	    60

#define VERSION_1 BIT(VIRTIO_F_VERSION_1)
#define PACKED	  BIT(VIRTIO_F_RING_PACKED)
#define EVENT_IDX BIT(VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT  BIT(VIRTIO_RING_F_INDIRECT_DESC)

#define S_DRIVER      (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
#define S_FEATURES    (S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define S_RUNNING     (S_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK)
#define S_NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

#define NONE 0xffff /* NO_VECTOR (4.1.5.1.2) */

/* On a machine that does other things as well nothing is late before this. */
#define PATIENCE_MS 10000
/* So long is looked whether something happens that must not. */
#define QUIET_MS 20

/* The guest's memory: bus address and size. */
#define MEM_AT	 UINT64_C(0x80000000)
#define MEM_SIZE (UINT64_C(4) << 20)

/* A function, and the operator's handle to it, NULL where it is in another process. */
struct vfn_function;
struct target {
	struct vfn_link *link;
	struct vfn_function *fn;
};

/* What a check wants the function to be like. */
struct target_conf {
	bool sleep; /* its pollers sleep when they are quiet */
	bool plain; /* no offloads of segmentation or checksums */
};

/*
 * Make a function of the net class with two pairs, looped back, and link to it.
 *
 * kind: a name of link_kind_name(). 0, or a negative errno.
 */
int open_link(const char *kind, const struct target_conf *conf, struct target *t);
const char *link_kind_name(unsigned int i); /* NULL behind the last one */

/* A structure that a capability tells of. */
struct place {
	uint8_t at; /* the capability, 0: there is none */
	uint8_t cap_len;
	uint8_t bar;
	uint32_t offset, length;
};

struct elem {
	uint64_t at;
	uint32_t len;
	bool write; /* by the device */
};

#define RING_MAX 256

struct dev;

/* A virtqueue, its driver's side. */
struct ring {
	struct dev *dev;
	uint16_t index, size;
	bool packed, event_idx, in_order;
	uint16_t indirect_flags; /* more of them, in descriptors that refer to a table */
	uint64_t area[3];
	/* Split. */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	/* Packed. */
	struct vring_packed_desc *slot;
	struct vring_packed_desc_event *driver_event, *device_event;

	uint16_t next, avail_idx, used_idx; /* packed: used_idx is a slot */
	bool wrap, used_wrap;
	uint16_t free;
	struct {
		uint16_t id, nb;
	} out[RING_MAX]; /* at the device, in order */
	uint16_t out_first, out_nb, run;
};

struct dev {
	struct target target;
	struct vfn_link *link;
	struct place common, notify, isr, config, vendor, window;
	uint32_t multiplier;
	uint8_t msix;
	uint8_t table_bar, pba_bar;
	uint32_t table_at, pba_at;
	uint16_t nb_vectors, nb_queues;
	uint64_t features;
	int mem_fd;
	uint8_t *mem;
	uint64_t mem_used;
	struct ring rx, tx, ctrl;
	int irq[VFN_MAX_VECTORS + 1]; /* eventfds, -1: none */
};

/* ---- device.c: registers ---- */

struct dev *dev_open(const struct target_conf *conf);
/* All that were opened; the teardown of every check. */
int dev_close_all(void **state);
/* Another function under the same memory; conf NULL: of the same kind. */
void dev_exchange(struct dev *d, const struct target_conf *conf);
/* Which link: set once. */
extern const char *link_kind;

uint32_t get(struct dev *d, const struct place *p, uint32_t offset, size_t len);
void set(struct dev *d, const struct place *p, uint32_t offset, size_t len, uint32_t v);
#define CONFIG_COMMAND 0x04
#define CONFIG_MASTER  0x0004
uint32_t pci_get(struct dev *d, uint32_t offset, size_t len);
void pci_set(struct dev *d, uint32_t offset, size_t len, uint32_t v);
void bar_set(struct dev *d, unsigned int bar, uint64_t offset, size_t len, uint32_t v);
uint32_t bar_get(struct dev *d, unsigned int bar, uint64_t offset, size_t len);

#define REG(type, f)  offsetof(type, f), sizeof(((type *)NULL)->f)
#define CGET(d, f)    get(d, &(d)->common, REG(struct virtio_pci_common_cfg, f))
#define CSET(d, f, v) set(d, &(d)->common, REG(struct virtio_pci_common_cfg, f), v)
#define NETGET(d, f)  get(d, &(d)->config, REG(struct virtio_net_config, f))
#define VGET(d, f)    get(d, &(d)->vendor, REG(struct vfn_vendor_cfg, f))
#define VSET(d, f, v) set(d, &(d)->vendor, REG(struct vfn_vendor_cfg, f), v)

/* Wait until a register reads so, and until it can be said that it does not. */
bool reads(struct dev *d, const struct place *p, uint32_t offset, size_t len, uint32_t v);
#define CREADS(d, f, v) reads(d, &(d)->common, REG(struct virtio_pci_common_cfg, f), v)
#define VREADS(d, f, v) reads(d, &(d)->vendor, REG(struct vfn_vendor_cfg, f), v)
void settle(struct dev *d);
uint8_t status_now(struct dev *d);

uint64_t offered(struct dev *d);
void accept_features(struct dev *d, uint64_t features);
bool negotiate(struct dev *d, uint64_t features);
void driver_ok(struct dev *d);
void dev_reset(struct dev *d);
/* Negotiate, one pair of rings, DRIVER_OK. */
void start(struct dev *d, uint64_t features);
/* The same; with conf.sleep it waits for the doorbells of all of its queues then. */
void start_asleep(struct dev *d, uint64_t features);
void vq_reset(struct dev *d, uint16_t queue);

void nap_ms(unsigned int ms);
uint64_t clock_ms(void);

/* ---- interrupts ---- */

void msix_on(struct dev *d);
void msix_control(struct dev *d, uint16_t bits);
#define MSIX_ON	    0x8000
#define MSIX_MASKED 0x4000
void vector_mask(struct dev *d, uint16_t vector, bool on);
bool vector_pending(struct dev *d, uint16_t vector);
/* The eventfd of a vector, or of the pin (VFN_VECTOR_INTX). */
int irq_fd(struct dev *d, uint16_t vector);
/* How often it was raised; waits for the first time. */
unsigned int raised(int fd, unsigned int ms);

/* ---- memory ---- */

/* Zeroed; *at is where the device finds it. */
void *mem_alloc(struct dev *d, uint64_t len, uint64_t *at);
/* A copy of all of it, and whether it is still the same. */
uint8_t *mem_copy(const struct dev *d);
bool mem_same(const struct dev *d, uint8_t *copy);

/* ---- ring.c ---- */

/* Lay it out, tell the device, enable it. */
void ring_setup(struct ring *r, struct dev *d, uint16_t queue, uint16_t size);
void ring_lay(struct ring *r, struct dev *d, uint16_t queue, uint16_t size);
bool ring_enable(struct ring *r);
/* A chain of n elements; those from the direct-th on are in a table. */
void ring_post(struct ring *r, const struct elem *e, unsigned int n, unsigned int direct);
void ring_notify(struct ring *r);
/* The next chain that came back; in the middle of an IN_ORDER run *len is UINT32_MAX. */
bool ring_used(struct ring *r, uint32_t *len);
uint32_t ring_wait(struct ring *r);
bool ring_quiet(struct ring *r, unsigned int ms);
/* Does the driver want to be called? */
void ring_events(struct ring *r, bool on);
/* Make what cannot be believed any more available. */
void ring_break(struct ring *r);

/* ---- net.c: frames through the loop ---- */

#define HDR 12u /* struct virtio_net_hdr_mrg_rxbuf (5.1.6.1) */

/* A header and a frame whose bytes tell its number; length of both. */
void frame_write(uint8_t *to, uint32_t number, uint32_t len);
void frame_post(struct dev *d, uint32_t number, uint32_t len);
/* A receive chain of one buffer; its bytes. */
uint8_t *buffer_post(struct dev *d, uint32_t len);
/* Send a frame, receive it, compare all of it. */
void frame_loops(struct dev *d, uint32_t number);
/* Carry out a command of the control queue; its answer. */
uint8_t command(struct dev *d, uint8_t class, uint8_t cmd, const void *data, uint32_t len);

/* ---- the list ---- */

enum { ON_SPLIT = 1 << 0, ON_PACKED = 1 << 1, ON_BOTH = ON_SPLIT | ON_PACKED };

struct check {
	const char *section; /* of virtio 1.3; "vfn": the vendor structure's */
	const char *name;
	void (*run)(struct dev *d, uint64_t format); /* PACKED or 0, to be negotiated */
	unsigned int formats;			     /* ON_*, each; 0: rings are not the point */
	struct target_conf conf;
};

#define CHECK(s, f) \
	{ \
		.section = s, .name = #f, .run = f \
	}
#define CHECK_ON(s, f, which) \
	{ \
		.section = s, .name = #f, .run = f, .formats = which \
	}

/* Each file's, ended by a name of NULL. */
extern const struct check caps_checks[], status_checks[], queue_checks[], split_checks[],
	packed_checks[], ring_checks[], irq_checks[], config_checks[], notify_checks[],
	parts_checks[];

#endif /* CONFORMANCE_DEVICE_H */
