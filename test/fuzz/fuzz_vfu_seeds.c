/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What right clients say, as inputs of the fuzzer of lib/vfio_user's server, and their mutations.
 * Any one thread.
 */

#include "fuzz_list.h"
#include "fuzz_seeds.h"
#include "fuzz_vfu.h"

#include "../unit/vfu_device.h"

#define REC sizeof(struct vfu_fuzz_message)

static struct {
	struct vfu_fuzz_head head;
	struct vfu_fuzz_message message[VFU_FUZZ_MESSAGES];
	size_t n;
} seed;

static struct vfu_fuzz_message *
say(uint8_t command)
{
	struct vfu_fuzz_message *r = &seed.message[seed.n++];

	*r = (struct vfu_fuzz_message){.command = command};
	return r;
}

static void
set(struct vfu_fuzz_message *r, unsigned int i, uint8_t base, int16_t add, uint8_t shift)
{
	r->value[i] = (struct vfu_fuzz_value){base, shift, add};
}

static void
give(seed_fn fn, void *arg, const char *name)
{
	static uint8_t bytes[sizeof(seed)];

	seed.head.version = FUZZ_VERSION;
	memcpy(bytes, &seed.head, FUZZ_LIST_HEAD);
	memcpy(bytes + FUZZ_LIST_HEAD, seed.message, seed.n * REC);
	fn(arg, name, bytes, FUZZ_LIST_HEAD + seed.n * REC);
	memset(&seed, 0, sizeof(seed));
}

static void
map(uint8_t base, int16_t pages, bool file)
{
	struct vfu_fuzz_message *r = say(VFU_DMA_MAP);

	set(r, 0, base, 0, 0);
	set(r, 1, VFU_V_0, pages, 12);
	set(r, 3, VFU_V_0, 3, 0);
	r->nb_fds = file;
}

static void
unmap(uint8_t base, int16_t pages, uint32_t flags)
{
	struct vfu_fuzz_message *r = say(VFU_DMA_UNMAP);

	set(r, 0, base, 0, 0);
	set(r, 1, VFU_V_0, pages, 12);
	set(r, 3, VFU_V_0, flags, 0);
}

static struct vfu_fuzz_message *
write_region(uint8_t region, uint8_t base, int16_t add, uint64_t data, uint16_t len)
{
	struct vfu_fuzz_message *r = say(VFU_REGION_WRITE);

	set(r, 0, VFU_V_0, region, 0);
	set(r, 1, base, add, 0);
	r->data_len = len;
	memcpy(r->data, &data, sizeof(data));
	return r;
}

static void
read_region(uint8_t region, uint8_t base, int16_t add, uint8_t count_base, int16_t count)
{
	struct vfu_fuzz_message *r = say(VFU_REGION_READ);

	set(r, 0, VFU_V_0, region, 0);
	set(r, 1, base, add, 0);
	set(r, 2, count_base, count, 0);
}

static struct vfu_fuzz_message *
irqs(uint8_t type, uint16_t flags, uint16_t start, uint16_t count, uint8_t nb_fds, uint16_t bools)
{
	struct vfu_fuzz_message *r = say(VFU_DEVICE_SET_IRQS);

	set(r, 0, VFU_V_0, type, 0);
	set(r, 1, VFU_V_0, flags, 0);
	set(r, 2, VFU_V_0, start, 0);
	set(r, 3, VFU_V_0, count, 0);
	r->nb_fds = nb_fds;
	r->fd_kind = VFU_FD_EVENT;
	r->data_len = bools;
	return r;
}

static struct vfu_fuzz_message *
feature(uint8_t base, uint8_t index, unsigned int words)
{
	struct vfu_fuzz_message *r = say(VFU_DEVICE_FEATURE);

	set(r, 0, base, index, 0);
	r->data_len = words;
	return r;
}

static void
move(uint8_t state)
{
	set(feature(VFU_V_SET, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, 1), 1, VFU_V_0, state, 0);
	feature(VFU_V_GET, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, 0);
}

/* The device reads or writes memory by messages. */
static void
go(uint8_t how, uint64_t at, uint64_t len, uint8_t ends)
{
	write_region(VD_REGS, VFU_V_0, VD_REG_ADDRESS, at, 8);
	write_region(VD_REGS, VFU_V_0, VD_REG_LEN, len, 8);
	write_region(VD_REGS, VFU_V_0, VD_REG_GO, how, 1)->answer = ends;
	read_region(VD_REGS, VFU_V_0, VD_REG_RESULT, VFU_V_0, 8);
}

static void
lookups(void)
{
	unsigned int i;

	say(VFU_DEVICE_GET_INFO);
	for (i = 0; i < VD_NB_REGIONS; i++) {
		set(say(VFU_DEVICE_GET_REGION_INFO), 0, VFU_V_0, i, 0);
		set(say(VFU_DEVICE_GET_REGION_IO_FDS), 0, VFU_V_0, i, 0);
	}
	for (i = 0; i < VD_NB_IRQS; i++)
		set(say(VFU_DEVICE_GET_IRQ_INFO), 0, VFU_V_0, i, 0);
}

static void
log_of_pages(void)
{
	struct vfu_fuzz_message *r = feature(VFU_V_SET, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, 4);

	set(r, 1, VFU_V_PAGE, 0, 0);
	set(r, 2, VFU_V_0, 1, 0);
	set(r, 3, VFU_V_MAP, 0, 0);
	set(r, 4, VFU_V_PAGE, 0, 0);
	r = feature(VFU_V_GET, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, 3);
	set(r, 1, VFU_V_MAP, 0, 0);
	set(r, 2, VFU_V_0, 64, 12);
	set(r, 3, VFU_V_PAGE, 0, 0);
	feature(VFU_V_SET, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, 0);
	feature(VFU_V_PROBE, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, 0);
}

static void
migration(void)
{
	feature(VFU_V_GET, VFIO_DEVICE_FEATURE_MIGRATION, 0);
	move(VFIO_DEVICE_STATE_STOP);
	move(VFIO_DEVICE_STATE_STOP_COPY);
	set(say(VFU_MIG_DATA_READ), 1, VFU_V_0, 4096, 0);
	set(say(VFU_MIG_DATA_READ), 1, VFU_V_XFER, 0, 0);
	move(VFIO_DEVICE_STATE_RESUMING);
	say(VFU_MIG_DATA_WRITE)->data_len = 4000;
	say(VFU_MIG_DATA_WRITE)->data_len = 60000;
	move(VFIO_DEVICE_STATE_RUNNING);
}

static void
interrupts(void)
{
	const uint16_t trigger = VFIO_IRQ_SET_ACTION_TRIGGER, fd = VFIO_IRQ_SET_DATA_EVENTFD,
		       none = VFIO_IRQ_SET_DATA_NONE, bools = VFIO_IRQ_SET_DATA_BOOL;

	irqs(VD_MSIX, fd | trigger, 0, 16, 16, 0);
	irqs(VD_MSIX, fd | trigger, 16, 3, 3, 0);
	irqs(VD_MSIX, fd | trigger, 4, 2, 0, 0);
	irqs(VD_MSIX, none | trigger, 0, 3, 0, 0);
	irqs(VD_MSIX, bools | trigger, 0, 8, 0, 8)->data[3] = 1;
	irqs(VD_INTX, fd | trigger, 0, 1, 1, 0);
	irqs(VD_INTX, fd | VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, 1, 0);
	irqs(VD_INTX, none | VFIO_IRQ_SET_ACTION_MASK, 0, 1, 0, 0);
	irqs(VD_INTX, none | VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, 0, 0);
	irqs(VD_MSIX, none | trigger, 0, 0, 0, 0);
}

void
fuzz_seeds(enum fuzz_target target, seed_fn fn, void *arg)
{
	struct vfu_fuzz_message *r;
	struct vfu_header *h;
	unsigned int i;

	(void)target;
	lookups();
	give(fn, arg, "lookups");
	map(VFU_V_MAP, 16, true);
	map(VFU_V_MAP_2, 300, false);
	map(VFU_V_0, 1, true);
	unmap(VFU_V_MAP, 16, 0);
	map(VFU_V_MAP, 8, true);
	unmap(VFU_V_0, 0, VFIO_DMA_UNMAP_FLAG_ALL);
	give(fn, arg, "maps");
	for (i = 1; i < 9; i *= 2) {
		write_region(VD_REGS, VFU_V_PAGE, i, 0x1122334455667788, i);
		read_region(VD_REGS, VFU_V_PAGE, i, VFU_V_0, i);
	}
	read_region(VD_SPARSE, VFU_V_0, 0, VFU_V_SPARSE, 0);
	read_region(VD_REGS, VFU_V_0, 256, VFU_V_XFER, 0);
	write_region(VD_WHOLE, VFU_V_0, 0, 7, 0x2000);
	read_region(VD_READONLY, VFU_V_0, 0, VFU_V_0, 64);
	say(VFU_DEVICE_RESET);
	r = say(VFU_REGION_WRITE_MULTI);
	r->data_len = 24 * 5;
	memcpy(r->data, &(struct vfu_region_write){8, VD_REGS, 4, {1}}, sizeof(r->data));
	give(fn, arg, "regions");
	interrupts();
	give(fn, arg, "interrupts");
	migration();
	give(fn, arg, "migration");
	log_of_pages();
	give(fn, arg, "log");
	map(VFU_V_MAP, 300, false);
	for (i = 0; i < VFU_ANSWER_MAX; i++)
		go(1 + i % 2, 0x40000000, 0x1000, i);
	give(fn, arg, "access");
	seed.head.flags = VFU_FUZZ_ONE_BYTE | VFU_FUZZ_ONE_FD;
	map(VFU_V_MAP, 300, false);
	go(1, 0x40000100, 0x200, VFU_ANSWER_RIGHT);
	go(2, 0x40000100, 0x200, VFU_ANSWER_RIGHT);
	write_region(VD_REGS, VFU_V_0, VD_REG_GO, 1, 1)->flags = VFU_FUZZ_BURST;
	map(VFU_V_MAP_2, 300, true);
	lookups();
	give(fn, arg, "meanwhile");
	seed.head.flags = VFU_FUZZ_NO_VERSION;
	seed.head.fail = 3;
	r = say(VFU_VERSION);
	set(r, 1, VFU_V_0, 1, 0);
	r->data_len = 24;
	memcpy(r->data, "{\"capabilities\":{}}", 20);
	lookups();
	interrupts();
	migration();
	log_of_pages();
	say(VFU_VERSION);
	give(fn, arg, "all");
	/* The bytes of a few, one behind the other. */
	seed.head.flags = VFU_FUZZ_RAW;
	for (i = 0; i < 4; i++) {
		h = (struct vfu_header *)&seed.message[seed.n++];
		*h = (struct vfu_header){i, i % 2 ? VFU_REGION_WRITE : VFU_REGION_READ, 64, 0, 0};
		if (i % 2 == 0)
			h->size = 32;
		memcpy(h + 1, &(struct vfu_region_access){16, VD_SPARSE, i % 2 ? 32 : 8}, 16);
		if (i % 2 == 0)
			memcpy((uint8_t *)h + 32,
				&(struct vfu_header){9, VFU_DEVICE_RESET, 32, 0, 0}, 16);
	}
	give(fn, arg, "bytes");
}

static void
change(void *record, uint64_t *s)
{
	struct vfu_fuzz_message *r = record;
	struct vfu_fuzz_value *v = &r->value[fuzz_random(s) % VFU_FUZZ_VALUES];
	const uint8_t byte = fuzz_random(s);

	switch (fuzz_random(s) % 11) {
	case 0:
		r->command = byte;
		break;
	case 1:
		r->flags ^= 1 << byte % 8;
		break;
	case 2:
		r->nb_fds = fuzz_random(s) % 2 ? byte % 3 : byte;
		break;
	case 3:
		r->fd_kind = byte;
		break;
	case 4:
		r->answer = byte;
		break;
	case 5:
		r->more = byte % 2 ? (int8_t)byte / 8 : (int8_t)byte;
		r->flags |= VFU_FUZZ_SHORT;
		break;
	case 6:
		r->data_len = fuzz_random(s) % 2 ? byte : fuzz_random(s);
		break;
	case 7:
		r->data[byte % sizeof(r->data)] = fuzz_random(s);
		break;
	case 8:
		v->base = byte;
		break;
	case 9:
		v->shift = byte;
		break;
	default:
		v->add += (int8_t)byte / 8;
		break;
	}
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int number)
{
	if (size > FUZZ_LIST_HEAD && (data[1] & VFU_FUZZ_RAW) != 0)
		return FUZZ_LIST_HEAD +
			LLVMFuzzerMutate(data + FUZZ_LIST_HEAD, size - FUZZ_LIST_HEAD,
				max_size - FUZZ_LIST_HEAD);
	return fuzz_list_mutate(data, size, max_size, number, REC, change);
}

size_t
LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2,
	uint8_t *out, size_t max_size, unsigned int number)
{
	return fuzz_list_cross(data1, size1, data2, size2, out, max_size, number, REC);
}
