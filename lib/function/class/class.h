/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What a device class is to the core: a struct that begins with struct vfn_function, registers of
 * its own in struct vfn_regs, and these operations. All of them are control with the function
 * locked, and while it is quiet unless they say otherwise.
 */

#ifndef VFN_CLASS_H
#define VFN_CLASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a class may take to finish what is out. */
#define VFN_DRAIN_MS 3000

/* Room for a class's registers, and for its device configuration. */
#define VFN_CLASS_REGS_SIZE   4096
#define VFN_CLASS_CONFIG_SIZE 256

struct vfn_function;
struct vfn_function_params;
struct vfn_queue;
struct vfn_regs;
struct vfn_part;
struct vfn_parts_writer;

struct vfn_class {
	uint16_t device_id;   /* of virtio (5) */
	uint8_t pci_class[3]; /* programming interface, sub-class, class */
	uint16_t config_size; /* bytes of the device configuration */
	uint16_t stride;      /* so many queues in a row have the same poller */
	size_t size;	      /* of its struct */

	/* How many queues; the last one may be a control queue. Nothing is there yet. */
	uint16_t (*nb_queues)(const struct vfn_function_params *params);
	/* Fill in what is the class's, device_features included; the list is locked, too. */
	int (*open)(struct vfn_function *fn);
	/* Undo that, after a reset; the list is locked, too. */
	void (*close)(struct vfn_function *fn);
	/* Not locked: nothing that was scheduled for the function happens any more. */
	void (*cancel)(struct vfn_function *fn);

	/* Registers as after a reset; not of the function, but of these. */
	void (*reset)(const struct vfn_function *fn, struct vfn_regs *regs);
	/* Bits of which one is needed by those in features, or 0. */
	uint64_t (*features_missing)(uint64_t features);
	/* Bytes of the device configuration, within its size. Not quiet. */
	void (*config_read)(struct vfn_function *fn, uint32_t offset, void *buf, size_t len);
	/* The driver writes some of them: 0, or -EINVAL. Not quiet. NULL: it can't. */
	int (*config_write)(struct vfn_function *fn, uint32_t offset, const void *buf, size_t len);
	/* The largest size of a queue, and does the device only read what is in it? */
	uint16_t (*queue_max)(const struct vfn_function *fn, unsigned int index);
	bool (*queue_reads_only)(const struct vfn_function *fn, unsigned int index);

	/* Which work there is now: vfn_work_add(). */
	void (*start)(struct vfn_function *fn);
	/*
	 * What was fetched from a queue, or all (NULL), and is still being worked on elsewhere, is
	 * waited for, within VFN_DRAIN_MS, and completed. False: some of it is still out, and
	 * reaches guest memory at any moment. NULL: whatever a turn fetches it completes or hands
	 * back, in the order of fetching. Where there is one, chains are completed in any order.
	 */
	bool (*drain)(struct vfn_function *fn, struct vfn_queue *q);
	/*
	 * Has any of that a byte in a range of addresses, of which the driver may say that they
	 * mean something else from now on? While no poller has a turn. NULL as drain is.
	 */
	bool (*uses)(const struct vfn_function *fn, uint64_t iova, uint64_t last);
	/* Queues may be active that were not. Not quiet. */
	void (*activated)(struct vfn_function *fn);
	/* The class's parts, written, and taken into registers: 0, or -ENOTSUP if it has none such,
	 * or -EINVAL, with the reason in *why. */
	void (*parts_get)(struct vfn_function *fn, struct vfn_parts_writer *w);
	int (*parts_set)(const struct vfn_function *fn, struct vfn_regs *regs,
		const struct vfn_part *part, const uint8_t *value, const char **why);
};

#endif /* VFN_CLASS_H */
