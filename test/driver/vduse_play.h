/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The kernel's side of VDUSE, played for tests of drivers/vduse: one device, whose messages a test
 * sends, whose IOTLB is the regions of a test/mock memory, and whose driver is test/mock's. It lies
 * where a test wants it to.
 */

#ifndef VDUSE_PLAY_H
#define VDUSE_PLAY_H

#include <pthread.h>
#include <stdbool.h>

#include <linux/vduse.h>

#include <vfn_vduse.h>

#include "fn_harness.h"

/** What GET_FD answers instead of the truth. */
struct play_lie {
	uint64_t start, last, offset;
	uint8_t perm;
	int fd; /**< -1: that of the region there. */
};

struct play_queue {
	struct vduse_vq_info info;
	struct mock_driver drv;
	int kick_fd; /**< Ours, -1: none. */
	uint64_t irqs;
};

struct play {
	int here; /**< The kernel's end of the device's messages. */
	int there;
	bool open, exists, knows_driver_ok;
	uint32_t last_id;
	uint64_t version;  /**< The kernel's latest. */
	bool version_gone; /**< It does not know ours any more. */
	uint64_t features;
	struct mock_mem mem;
	pthread_mutex_t lock; /* of all that the adaptor's thread sees, too */
	struct play_queue q[VFN_VDUSE_QUEUES];
	unsigned int nb_fds;	     /**< GET_FD was asked for so often. */
	const struct play_lie *lies; /**< One after the other, then the truth; NULL: none. */
	unsigned int nb_lies, next_lie;
	bool lie_for_ever;	      /**< The last of them. */
	unsigned int interrupt_reads; /**< So many more reads are interrupted. */
	struct virtio_net_config config;
	unsigned int config_irqs;

	/* The function and its owner. */
	struct vfn_function *fn;
	struct vfn_vpci pci;
	pthread_mutex_t pci_lock;
	struct vfn_vduse *vduse;
	unsigned int begun, ended, runs;
	uint16_t stopped_at[VFN_VDUSE_QUEUES];
	bool know; /**< The owner says where packed rings stand. */
};

/** There is one at a time. */
extern struct play play;

/** A looped-back function on a device that nobody uses. */
void play_open(uint32_t ready_ms);
int play_close(void **state);
/** The server goes, without or with a word, and another one comes. */
void play_serve_anew(void);

/** vfn_vduse_create() for the same function. */
int play_create(const char *name, uint32_t ready_ms, struct vfn_vduse **vduse);

/** A message, and its result: VDUSE_REQ_RESULT_*; -1: no answer. */
int play_ask(const struct vduse_dev_request *request, struct vduse_dev_response *response);
int play_status(uint8_t status);
int play_update(uint64_t start, uint64_t last);
/** Where a queue stands. */
struct vduse_vq_state play_position(uint32_t index);

/** Memory that is in the IOTLB from now on. */
uint8_t *play_map(uint64_t iova, uint64_t len, uint32_t perm);
void play_unmap(uint64_t iova);

/** Lay both rings out where a driver of the kernel's has them, each in a range of its own. */
void play_rings(bool packed);
/** Up to DRIVER_OK, with buffers behind it or not; the queues run or wait for a kick then. */
void play_start(bool packed, bool buffers);
void play_buffers(void);
const char *play_phase(void);
void play_wait(const char *phase);

/** Frames go out and come back, so many. */
void play_frames(unsigned int n);
/** The next that comes back, of either queue. False: none within so many milliseconds. */
bool play_used(uint32_t queue, struct mock_used *used, unsigned int ms);
void play_send(unsigned int number);
/** The same, but not published. */
void play_prepare(unsigned int number);
/** The next frame that comes back has this number. */
void play_receive(unsigned int number);
void play_kick(uint32_t queue);

struct vfn_vduse_info play_info(void);
/** A counter of the function's: VFN_STAT_* or VFN_NET_STAT_*. */
uint64_t play_stat(uint16_t queue, unsigned int which);
/** The driver's memory and rings go. */
void play_clear(void);
/** Whatever came before: a driver that begins anew has a device. */
void play_still_works(void);

#define OK	VDUSE_REQ_RESULT_OK
#define FAILED	VDUSE_REQ_RESULT_FAILED
#define RW	(VRINGH_PERM_READ | VRINGH_PERM_WRITE)
#define RUNNING (STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK)

#define PLAY_FEATURES \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_ACCESS_PLATFORM) | BIT(VIRTIO_NET_F_MRG_RXBUF))

#define RING_AT	   0x47ff0000
#define BUFFERS_AT 0x1000
#define BUFFERS	   (4u << 20)
#define FRAME_LEN  200u

#endif /* VDUSE_PLAY_H */
