/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What a right driver does with a function's registers and its memory, in the order of a Linux
 * virtio_net driver, as inputs of the fuzzer of registers; and their mutations. Any one thread.
 */

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "fuzz_list.h"
#include "fuzz_regs.h"
#include "fuzz_seeds.h"

#define REC sizeof(struct regs_fuzz_op)

/* Of common_field[] and vendor_field[] in fuzz_regs.c. */
enum {
	DEVICE_SELECT,
	DRIVER_SELECT,
	DRIVER_FEATURE,
	CONFIG_VECTOR,
	STATUS,
	QUEUE_SELECT,
	QUEUE_SIZE,
	QUEUE_VECTOR,
	QUEUE_ENABLE,
	DESC_LO,
	DESC_HI,
	DRIVER_LO,
	DRIVER_HI,
	DEVICE_LO,
	DEVICE_HI,
	QUEUE_RESET
};
enum {
	SUSPEND_QUEUE,
	AVAIL,
	USED,
	SUSPEND,
	DIRTY_LO,
	DIRTY_HI,
	DIRTY_LEN_LO,
	DIRTY_LEN_HI,
	DIRTY_CONTROL,
	QUEUE_DIRTY_LO,
	QUEUE_DIRTY_HI,
	INFLIGHT_LO,
	INFLIGHT_HI,
	INFLIGHT_LEN,
	PARTS_LEN,
	PARTS_CONTROL
};

static struct {
	struct regs_fuzz_head head;
	struct regs_fuzz_op op[REGS_FUZZ_OPS];
	size_t n;
} seed;

static struct regs_fuzz_op *
act(uint8_t op, uint8_t a, uint16_t b, uint8_t base, int16_t add)
{
	struct regs_fuzz_op *r = &seed.op[seed.n++];

	*r = (struct regs_fuzz_op){.op = op, .a = a, .b = b, .base = base, .add = add};
	return r;
}

static void
common(uint8_t field, uint8_t base, int16_t add)
{
	act(R_COMMON, field, 0, base, add);
}

static void
vendor(uint8_t field, uint8_t base, int16_t add)
{
	act(R_VENDOR, field, 0, base, add);
}

static void
give(seed_fn fn, void *arg, const char *name)
{
	static uint8_t bytes[sizeof(seed)];
	unsigned int race;
	char with[64];

	for (race = 0; race < 2; race++) {
		seed.head.version = FUZZ_VERSION;
		seed.head.flags = race ? REGS_FUZZ_RACE : 0;
		memcpy(bytes, &seed.head, FUZZ_LIST_HEAD);
		memcpy(bytes + FUZZ_LIST_HEAD, seed.op, seed.n * REC);
		snprintf(with, sizeof(with), "%s%s", name, race ? "_race" : "");
		fn(arg, with, bytes, FUZZ_LIST_HEAD + seed.n * REC);
	}
	memset(&seed, 0, sizeof(seed));
}

/* virtio_pci_modern and virtio_net: probe, features, vectors, queues, DRIVER_OK. */
static void
linux_driver(uint16_t size)
{
	unsigned int i;

	act(R_READ, 3, 2, R_V_0, 0); /* configuration space */
	act(R_PCI, 0, 1, R_V_0, 6)->c = 4;
	common(STATUS, R_V_0, 0);
	common(STATUS, R_V_0, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	common(STATUS, R_V_0, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	for (i = 0; i < 2; i++) {
		common(DEVICE_SELECT, R_V_0, i);
		act(R_READ, 0, 2, R_V_0, 0)->c = 4;
	}
	common(DRIVER_SELECT, R_V_0, 0);
	act(R_COMMON, DRIVER_FEATURE, 0, R_V_0, 1 << VIRTIO_NET_F_MRG_RXBUF | 0x20);
	common(DRIVER_SELECT, R_V_0, 1);
	common(DRIVER_FEATURE, R_V_0, 1 | 1 << (VIRTIO_F_RING_RESET - 32));
	common(STATUS, R_V_0, 11);
	act(R_READ, 0, 0, R_V_0, 0)->c = 20;
	for (i = 0; i < 4; i++) {
		act(R_MSIX, i, 0, R_V_2_31, 0);
		act(R_MSIX, i, 3, R_V_0, 0);
		act(R_IRQ, 1, i, R_V_0, 0);
	}
	act(R_PCI, 0, 1, R_V_0, -0x8000)->c = 0x42;
	common(CONFIG_VECTOR, R_V_0, 0);
	for (i = 0; i < 2; i++) {
		common(QUEUE_SELECT, R_V_0, i);
		common(QUEUE_SIZE, R_V_0, size);
		act(R_COMMON, DESC_LO, 0, R_V_RINGS, 3 * i)->shift = 12;
		common(DESC_HI, R_V_0, 0);
		act(R_COMMON, DRIVER_LO, 0, R_V_RINGS, 3 * i + 1)->shift = 12;
		common(DRIVER_HI, R_V_0, 0);
		act(R_COMMON, DEVICE_LO, 0, R_V_RINGS, 3 * i + 2)->shift = 12;
		common(DEVICE_HI, R_V_0, 0);
		common(QUEUE_VECTOR, R_V_0, i + 1);
		common(QUEUE_ENABLE, R_V_0, 1);
	}
	common(STATUS, R_V_STATUS, 0);
}

static void
setup(uint16_t size, uint32_t formats)
{
	act(R_SETUP, 63, size, R_V_0, 0)->c = formats;
	seed.op[seed.n - 1].d = 0x3f3f;
}

static void
descriptor(uint8_t q, uint16_t index, uint8_t base, int16_t add, uint32_t len, uint32_t flags)
{
	struct regs_fuzz_op *r = act(R_DESC, q, index, base, add);

	r->c = len;
	r->d = flags;
}

/* Two buffers for the receiver, two frames; the doorbells. */
static void
frames(void)
{
	unsigned int i;

	for (i = 0; i < 2; i++) {
		descriptor(0, i, R_V_BUFFERS, 0x1000 * (i + 4), 2048, VRING_DESC_F_WRITE);
		act(R_AVAIL, 0, i, R_V_0, 0);
		descriptor(1, 2 * i, R_V_BUFFERS, 0x1000 * i, 12,
			VRING_DESC_F_NEXT | (2 * i + 1) << 16);
		descriptor(1, 2 * i + 1, R_V_BUFFERS, 0x1000 * i + 12, 100, 0);
		act(R_AVAIL, 1, 2 * i, R_V_0, 0);
	}
	act(R_NOTIFY, 0, 1, R_V_0, 0);
	act(R_NOTIFY, 1, 1, R_V_0, 1);
	act(R_TURN, 3, 0, R_V_0, 0);
}

static void
command(uint8_t class, uint8_t number)
{
	act(R_POKE, R_MEM_BUFFERS, 0, R_V_0, class)->c = 0x8000;
	act(R_POKE, R_MEM_BUFFERS, 0, R_V_0, number)->c = 0x8001;
	act(R_POKE, R_MEM_BUFFERS, 1, R_V_0, 1)->c = 0x8002;
	descriptor(4, 0, R_V_BUFFERS_END, -0x8000, 4, VRING_DESC_F_NEXT | 1 << 16);
	descriptor(4, 1, R_V_BUFFERS_END, -0x7000, 1, VRING_DESC_F_WRITE);
	act(R_AVAIL, 4, 0, R_V_0, 0);
	act(R_NOTIFY, 4, 1, R_V_0, 4);
	act(R_TURN, 1, 0, R_V_0, 0);
}

void
fuzz_seeds(enum fuzz_target target, seed_fn fn, void *arg)
{
	unsigned int i;

	(void)target;
	linux_driver(256);
	frames();
	act(R_READ, 0, 0, R_V_0, 0)->c = 0x1000; /* ISR */
	common(STATUS, R_V_0, 0);
	linux_driver(8);
	frames();
	give(fn, arg, "linux");
	setup(256, 0);
	frames();
	for (i = 0; i < 6; i++)
		command(i, 0);
	give(fn, arg, "commands");
	for (i = 0; i < 4; i++) {
		setup(64, i);
		frames();
		act(R_FILL, R_MEM_RINGS, 0, R_V_0, 0)->c = i;
		act(R_NOTIFY, 1, 1, R_V_0, 1);
		act(R_TURN, 4, 0, R_V_0, 0);
	}
	give(fn, arg, "garbage");
	setup(256, 0);
	frames();
	vendor(SUSPEND, R_V_0, 1);
	vendor(PARTS_CONTROL, R_V_0, 1);
	vendor(PARTS_CONTROL, R_V_0, 3);
	vendor(SUSPEND, R_V_0, 0);
	frames();
	act(R_RESET, 0, 0, R_V_0, 0);
	vendor(PARTS_CONTROL, R_V_0, 2);
	common(STATUS, R_V_STATUS, 0);
	vendor(SUSPEND, R_V_0, 0);
	act(R_TURN, 3, 0, R_V_0, 0);
	common(QUEUE_SELECT, R_V_0, 1);
	vendor(SUSPEND_QUEUE, R_V_0, 1);
	common(QUEUE_RESET, R_V_0, 1);
	act(R_QUEUE, 1, 16, R_V_0, 0);
	frames();
	give(fn, arg, "parts");
	vendor(DIRTY_LO, R_V_OWN, 0);
	act(R_VENDOR, DIRTY_LEN_LO, 0, R_V_0, 1)->shift = 15;
	vendor(DIRTY_CONTROL, R_V_0, 1);
	setup(256, 0);
	vendor(DIRTY_CONTROL, R_V_0, 1);
	frames();
	vendor(DIRTY_CONTROL, R_V_0, 0);
	act(R_RESET, 0, 0, R_V_0, 0);
	for (i = 0; i < 2; i++) {
		common(QUEUE_SELECT, R_V_0, i);
		act(R_VENDOR, INFLIGHT_LO, 0, R_V_OWN, 2 * i)->shift = 12;
		act(R_VENDOR, INFLIGHT_LEN, 0, R_V_0, 1)->shift = 13;
	}
	frames();
	give(fn, arg, "dirty");
	setup(128, 0);
	frames();
	for (i = 0; i < R_MEM_MAX; i++) {
		act(R_MAP, i, 0, R_V_0, 0);
		frames();
		act(R_MAP, i, 0, R_V_0, 0);
		act(R_DOORBELL, i, i, R_V_0, 0);
	}
	act(R_WRITE, 0x80, 100, R_V_0, 0)->c = 0x2000;
	act(R_DEVICE, 0, 0, R_V_0, 3);
	act(R_PARTS, 0, 8, R_V_TOP, 0);
	give(fn, arg, "maps");
}

static void
change(void *record, uint64_t *s)
{
	struct regs_fuzz_op *r = record;
	const uint8_t byte = fuzz_random(s);

	switch (fuzz_random(s) % 8) {
	case 0:
		r->op = byte;
		break;
	case 1:
		r->a = byte;
		break;
	case 2:
		r->b = fuzz_random(s) % 2 ? byte : fuzz_random(s);
		break;
	case 3:
		r->base = byte;
		break;
	case 4:
		r->shift = byte;
		break;
	case 5:
		r->add += (int8_t)byte / 8;
		break;
	case 6:
		r->c = fuzz_random(s) % 2 ? r->c + (int8_t)byte : fuzz_random(s);
		break;
	default:
		r->d = fuzz_random(s) % 2 ? r->d ^ 1u << byte % 32 : fuzz_random(s);
		break;
	}
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int number)
{
	return fuzz_list_mutate(data, size, max_size, number, REC, change);
}

size_t
LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2,
	uint8_t *out, size_t max_size, unsigned int number)
{
	return fuzz_list_cross(data1, size1, data2, size2, out, max_size, number, REC);
}
