/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A device for the tests of lib/vfio_user: memory, interrupts and a state, and a judge of what the
 * library asks of it. What breaks the library's promise (vfu_server.h) is an abort().
 *
 * Threads: that of vfu_serve(), but for what is said to be for others.
 */

#ifndef VFU_DEVICE_H
#define VFU_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "vfu_private.h"

#define MUST(cond) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond); \
			abort(); \
		} \
	} while (0)

/* Regions. */
enum {
	VD_REGS,     /* see VD_REG_*; every access is a message */
	VD_SPARSE,   /* VD_SPARSE_SIZE, of which two parts can be mapped */
	VD_WHOLE,    /* all of it can be */
	VD_READONLY, /* 64 bytes */
	VD_NONE,     /* there is none */
	VD_NB_REGIONS
};
#define VD_REGS_SIZE	 0x200100u /* more than a message takes */
#define VD_SPARSE_SIZE	 0x4000u
#define VD_WHOLE_SIZE	 0x2000u
#define VD_READONLY_SIZE 64u

/* In VD_REGS: the device's own access to memory, done when GO is written (1: read, 2: write). */
#define VD_REG_ADDRESS 0x0
#define VD_REG_LEN     0x8
#define VD_REG_RESULT  0x10 /* of the access, int64 */
#define VD_REG_GO      0x18
#define VD_DATA	       0x1000 /* the data of it; up to VD_DATA_SIZE */
#define VD_DATA_SIZE   0x200000u

/* Types of interrupts. */
enum {
	VD_INTX, /* one, that is masked */
	VD_EMPTY,
	VD_MSIX,
	VD_NB_IRQS
};
#define VD_NB_MSIX 40

#define VD_NB_IOEVENTFDS 3
#define VD_STATE_SIZE	 0x180000u /* more than a message takes */
#define VD_MAX_LINES	 64

struct vfu_dev {
	/* What an operation shall return instead, once; set while no command is being done. */
	int fail;
	/* Any mask of these is at fault. */
	enum {
		VD_NO_MIGRATION = 1,
		VD_NO_LOG = 2,
		VD_NO_IOEVENTFDS = 4,
		VD_NO_MASK = 8,
	} without;
	uint32_t dma_most; /* sizes of maps above that are refused; 0: none are */

	/* What was done, in numbers. */
	atomic_uint attached, detached;
	unsigned int resets, maps, unmaps, moves, reads, writes, triggers[VD_NB_MSIX];

	struct vfu_dma map[VFU_MAX_MAPS];
	unsigned int nb_maps;
	int irq_fd[VD_NB_IRQS][VD_NB_MSIX];
	int unmask_fd;
	bool masked;
	enum vfio_device_mig_state state;
	size_t state_at; /* bytes read, or written */
	uint8_t *saved;	 /* VD_STATE_SIZE */
	bool logging;
	uint64_t log_page;
	struct vfu_log_range log_range[VFU_MAX_MAPS];
	unsigned int nb_log_ranges;
	uint64_t dirty; /* an address that the log has; 0: none */

	uint8_t *regs;
	uint8_t readonly[VD_READONLY_SIZE];
	int sparse_fd, whole_fd;
	uint8_t *sparse, *whole;
	int ioeventfd[VD_NB_IOEVENTFDS];

	struct vfu_server *server;
	struct vfu_device_ops ops;

	pthread_mutex_t lock; /* of what follows: any thread */
	char line[VD_MAX_LINES][256];
	unsigned int nb_lines; /* in all */
};

/** A device as after power-on, and a server for it. Any thread. */
void vd_open(struct vfu_dev *dev, unsigned int without);
/** The server is not being served. Any thread. */
void vd_close(struct vfu_dev *dev);

#endif /* VFU_DEVICE_H */
