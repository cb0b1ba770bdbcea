/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What the parts of the adaptor share. Private to this folder. */

#ifndef VDUSE_PRIVATE_H
#define VDUSE_PRIVATE_H

#include <inttypes.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include <linux/vduse.h>

#include <rte_log.h>

#include <vfn_link.h>

#include "vfn_vduse.h"

extern int vfn_vduse_logtype;
#define VDUSE_LOG(level, v, fmt, ...) \
	rte_log(RTE_LOG_##level, vfn_vduse_logtype, "%s: /dev/vduse/%s: " fmt "\n", \
		(v)->pci->name, (v)->name, ##__VA_ARGS__)

/* About what comes through the device, which may be a stranger's: not without end. */
#define VDUSE_COMPLAIN(v, ...) \
	do { \
		if (vduse_may_complain(v)) \
			VDUSE_LOG(ERR, v, __VA_ARGS__); \
	} while (0)

#define FEATURE(bit) (UINT64_C(1) << (bit))

/* Entries of a ring, at most: as many as other servers of network devices have. */
#define QUEUE_SIZE 1024

/* The kernel's driver has 3 or 4 regions, a guest behind vhost-vdpa as many as it has slots. */
#define MAX_REGIONS 512

/* A range of the IOTLB, mapped here and by the function. */
struct region {
	uint64_t start, last;
	uint64_t offset;
	uint64_t dev, ino; /* of the file */
	uint8_t perm;
	bool found; /* in the walk that is going on */
	struct vfn_map *map;
};

struct queue {
	struct vfn_irq_call call;
	struct vfn_vduse *vduse;
	uint32_t index;
	int kick_fd, irq_fd; /* -1: none */
	bool started;
	bool off;	   /* it was refused, or was not ready in time: until the next reset */
	bool have_stopped; /* position is where */
	uint16_t avail, used;
};

enum phase {
	CLOSED,	 /* nobody serves */
	IDLE,	 /* no DRIVER_OK */
	CONFIRM, /* DRIVER_OK is answered, and the kernel may not have heard it yet */
	QUEUES,	 /* queues become ready */
	KICK,	 /* the memory of buffers comes with the first kick */
	RUNNING,
	FAILED, /* until the next reset */
	BROKEN, /* the kernel has given up on us */
};

struct vfn_vduse {
	char name[VDUSE_NAME_MAX];
	struct vfn_vpci *pci;
	const struct vfn_vduse_owner *owner;
	void *data;
	const struct vfn_vduse_sys *sys;
	uint16_t device_id, config_size;
	uint64_t hidden;
	uint32_t msg_timeout, ready_ms;
	bool event_irqs;
	bool ours; /* we have made it, or had it */

	int control_fd; /* /dev/vduse/control */
	int fd;		/* /dev/vduse/NAME, -1: nobody serves */
	int wake_fd;
	pthread_t thread;
	bool runs;
	bool quit; /* atomic */

	/* Under the owner's lock. */
	enum phase phase;
	enum vfn_vduse_start how;
	uint8_t status;	   /* as it was answered last */
	uint64_t features; /* of the driver */
	uint64_t deadline; /* of CONFIRM and QUEUES, in ms */
	bool begun;	   /* the owner was told of a driver */
	bool ended;	   /* and of its end, but the function does not let go */
	struct queue queue[VFN_VDUSE_QUEUES];
	struct region *region; /* sorted */
	uint32_t nb_regions;

	uint64_t messages, refused;
	uint64_t complaints_since; /* in ms */
	unsigned int complaints;
	uint64_t interrupts, irqs_refused; /* atomic */
};

/* vduse_device.c */
uint64_t vduse_now_ms(void);
bool vduse_may_complain(struct vfn_vduse *v);
int vduse_ioctl(struct vfn_vduse *v, unsigned long request, void *arg);
void vduse_set_config(struct vfn_vduse *v);

/* vduse_iotlb.c. Locked. */
int vduse_iotlb_update(struct vfn_vduse *v, uint64_t start, uint64_t last);
const struct region *vduse_iotlb_find(const struct vfn_vduse *v, uint64_t iova, uint64_t len);
void vduse_iotlb_free(struct vfn_vduse *v);

/* vduse_queue.c. Locked. */
bool vduse_queue_info(struct vfn_vduse *v, uint32_t index, struct vduse_vq_info *info);
bool vduse_buffers_mapped(struct vfn_vduse *v);
void vduse_queue_start(struct vfn_vduse *v, uint32_t index);
int vduse_queue_position(struct vfn_vduse *v, uint32_t index, struct vduse_vq_state *state);
void vduse_queues_stop(struct vfn_vduse *v);
int vduse_queues_open(struct vfn_vduse *v);
void vduse_queues_close(struct vfn_vduse *v);
bool vduse_inject(struct vfn_irq_call *call);

/* vduse_control.c */
void *vduse_thread(void *vduse);
/* Everything that a driver had goes. -EIO: the function does not let go. Locked. */
int vduse_reset(struct vfn_vduse *v);

#endif /* VDUSE_PRIVATE_H */
