/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Fuzzer of a function's registers: what a hostile guest writes, with memory of its own that it
 * changes while the function reads it. The poller is run by hand, on the target's thread, and
 * control with it; a second thread writes to the memory only.
 *
 * Memory that is taken back is made inaccessible: what is touched afterwards, or beyond the end, is
 * the end of the process.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <rte_log.h>

#include "../driver/fn_harness.h"

#include "fuzz_regs.h"

static struct {
	struct vfn_function *fn;
	struct vfn_link *link;
	uint8_t *mem[R_MEM_MAX];
	bool mapped[R_MEM_MAX];
	int event;
	uint64_t offered;
	pthread_t thread, main;
	bool taken_over;
	atomic_bool race, racing;
	uint64_t race_seed;
} t;

struct snapshot {
	uint8_t common[REGS_NB_QUEUES + 1][sizeof(struct vfn_common_cfg)];
	uint8_t vendor[REGS_NB_QUEUES + 1][sizeof(struct vfn_vendor_cfg)];
	uint8_t device[64];
	uint8_t pci[VFN_PCI_CONFIG_SIZE];
	uint8_t msix[(REGS_NB_QUEUES + 1) * 16];
	uint8_t isr;
};
static struct snapshot power_on;

static const struct {
	uint8_t offset, len;
} common_field[] =
	{
#define F(f) \
	{ \
		offsetof(struct vfn_common_cfg, f), sizeof(((struct vfn_common_cfg *)NULL)->f) \
	}
		F(device_feature_select),
		F(driver_feature_select),
		F(driver_feature),
		F(config_msix_vector),
		F(device_status),
		F(queue_select),
		F(queue_size),
		F(queue_msix_vector),
		F(queue_enable),
		F(queue_desc_lo),
		F(queue_desc_hi),
		F(queue_driver_lo),
		F(queue_driver_hi),
		F(queue_device_lo),
		F(queue_device_hi),
		F(queue_reset),
#undef F
},
  vendor_field[] = {
#define F(f) \
	{ \
		offsetof(struct vfn_vendor_cfg, f), sizeof(((struct vfn_vendor_cfg *)NULL)->f) \
	}
	  F(queue_suspend),
	  F(queue_avail),
	  F(queue_used),
	  F(suspend),
	  F(dirty_lo),
	  F(dirty_hi),
	  F(dirty_len_lo),
	  F(dirty_len_hi),
	  F(dirty_control),
	  F(queue_dirty_lo),
	  F(queue_dirty_hi),
	  F(queue_inflight_lo),
	  F(queue_inflight_hi),
	  F(queue_inflight_len),
	  F(parts_len),
	  F(parts_control),
#undef F
};

static uint64_t
value(const struct regs_fuzz_op *r)
{
	const uint64_t base[R_V_MAX] = {
		[R_V_RINGS] = REGS_MEM_AT(R_MEM_RINGS),
		[R_V_RINGS_END] = REGS_MEM_AT(R_MEM_RINGS) + REGS_MEM_SIZE,
		[R_V_BUFFERS] = REGS_MEM_AT(R_MEM_BUFFERS),
		[R_V_BUFFERS_END] = REGS_MEM_AT(R_MEM_BUFFERS) + REGS_MEM_SIZE,
		[R_V_READ_ONLY] = REGS_MEM_AT(R_MEM_READ_ONLY),
		[R_V_OWN] = REGS_MEM_AT(R_MEM_OWN),
		[R_V_OWN_END] = REGS_MEM_AT(R_MEM_OWN) + REGS_MEM_SIZE,
		[R_V_OFFERED] = t.offered,
		[R_V_STATUS] = STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK,
		[R_V_2_16] = 1 << 16,
		[R_V_2_31] = UINT64_C(1) << 31,
		[R_V_2_32] = UINT64_C(1) << 32,
		[R_V_TOP] = UINT64_MAX,
	};

	return base[r->base % R_V_MAX] + ((uint64_t)(int64_t)r->add << r->shift % 48);
}

/* ---- registers ---- */

static void
get(unsigned int region, uint64_t offset, void *buf, size_t len)
{
	CHECK(t.link->ops->read(t.link, region, offset, buf, len) == 0);
}

static void
put(unsigned int region, uint64_t offset, uint64_t v, size_t len)
{
	int ret = t.link->ops->write(t.link, region, offset, &v, len);

	CHECK(ret == 0 || ret == -EINVAL);
}

#define COMMON(f, v) \
	put(VFN_REGION_BAR0, VFN_OFF_COMMON + offsetof(struct vfn_common_cfg, f), v, \
		sizeof(((struct vfn_common_cfg *)NULL)->f))

#define VENDOR(f, v) \
	put(VFN_REGION_BAR0, VFN_OFF_VENDOR + offsetof(struct vfn_vendor_cfg, f), v, \
		sizeof(((struct vfn_vendor_cfg *)NULL)->f))

static uint8_t
status(void)
{
	uint8_t v;

	get(VFN_REGION_BAR0, VFN_OFF_COMMON + offsetof(struct vfn_common_cfg, device_status), &v,
		1);
	return v;
}

static void
reset(void)
{
	COMMON(device_status, 0);
	CHECK(status() == 0);
}

static void
access_any(const struct regs_fuzz_op *r, bool write)
{
	static const unsigned int regions[] = {
		VFN_REGION_BAR0, VFN_REGION_BAR1, VFN_REGION_BAR2, VFN_REGION_CONFIG, 3, 8, 9};
	static uint8_t buf[4096];
	const size_t len = r->a & 0x80 ? r->b % sizeof(buf) : (size_t)1 << r->b % 4;
	const uint64_t v = value(r);
	size_t i;
	int ret;

	for (i = 0; i < len; i++)
		buf[i] = v >> i % 8 * 8;
	ret = write ? t.link->ops->write(t.link, regions[(r->a & 0x7f) % DIM(regions)],
			      r->d & 1 ? v : r->c % (VFN_BAR0_SIZE + 16), buf, len) :
		      t.link->ops->read(t.link, regions[(r->a & 0x7f) % DIM(regions)],
			      r->d & 1 ? v : r->c % (VFN_BAR2_SIZE + 16), buf, len);
	CHECK(ret == 0 || ret == -EINVAL);
}

static void
queue(unsigned int q, uint16_t size)
{
	COMMON(queue_select, q);
	COMMON(queue_size, size);
	COMMON(queue_desc_lo, (uint32_t)REGS_RING(q, 0));
	COMMON(queue_driver_lo, (uint32_t)REGS_RING(q, 1));
	COMMON(queue_device_lo, (uint32_t)REGS_RING(q, 2));
	COMMON(queue_msix_vector, q + 1);
	COMMON(queue_enable, 1);
}

static void
setup(const struct regs_fuzz_op *r)
{
	uint64_t features = t.offered;
	unsigned int q;

	features &= ~(BIT(r->a % 64) | BIT(r->d % 64) | BIT((r->d >> 8) % 64));
	if ((r->c & 1) == 0)
		features &= ~BIT(VIRTIO_F_RING_PACKED);
	if ((r->c & 2) == 0)
		features &= ~BIT(VIRTIO_F_IN_ORDER);
	features |= BIT(VIRTIO_F_VERSION_1);
	reset();
	put(VFN_REGION_CONFIG, 4, 6, 2); /* memory, bus master */
	COMMON(device_status, STATUS_DRIVER);
	COMMON(driver_feature_select, 0);
	COMMON(driver_feature, (uint32_t)features);
	COMMON(driver_feature_select, 1);
	COMMON(driver_feature, features >> 32);
	COMMON(device_status, STATUS_FEATURES);
	for (q = 0; q < REGS_NB_QUEUES; q++)
		queue(q, r->b);
	COMMON(device_status, STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK);
}

/* ---- memory ---- */

static void
map(unsigned int i, bool on)
{
	const uint64_t at = REGS_MEM_AT(i);
	const struct vfn_dma_map m = {
		.space = i == R_MEM_OWN ? VFN_DMA_OWN : VFN_DMA_GUEST,
		.iova = at,
		.len = REGS_MEM_SIZE,
		.host = t.mem[i],
		.fd = -1,
		.readable = true,
		.writable = i != R_MEM_READ_ONLY,
	};

	if (on == t.mapped[i])
		return;
	if (on) {
		CHECK(mprotect(t.mem[i], REGS_MEM_SIZE,
			      PROT_READ | (m.writable ? PROT_WRITE : 0)) == 0);
		CHECK(t.link->ops->dma_map(t.link, &m) == 0);
	} else {
		CHECK(t.link->ops->dma_unmap(t.link, m.space, at, REGS_MEM_SIZE) == 0);
		CHECK(mprotect(t.mem[i], REGS_MEM_SIZE, PROT_NONE) == 0);
	}
	t.mapped[i] = on;
}

static bool
writable(unsigned int i)
{
	return t.mapped[i] && i != R_MEM_READ_ONLY;
}

static void
poke(unsigned int i, uint32_t at, const void *bytes, size_t len)
{
	if (writable(i))
		memcpy(t.mem[i] + at % (REGS_MEM_SIZE - 16), bytes, len);
}

static void
fill(unsigned int i, uint64_t seed)
{
	uint32_t at;
	uint64_t v;

	for (at = 0; writable(i) && at < REGS_MEM_SIZE; at += sizeof(v)) {
		v = fuzz_random(&seed);
		memcpy(t.mem[i] + at, &v, sizeof(v));
	}
}

static void
available(unsigned int q, uint16_t head, unsigned int n)
{
	uint8_t *avail = t.mem[R_MEM_RINGS] + q * REGS_RING_STEP + 0x1000;
	uint16_t index;

	if (!writable(R_MEM_RINGS))
		return;
	memcpy(&index, avail + 2, sizeof(index));
	for (; n > 0; n--, index++)
		memcpy(avail + 4 + 2 * (index % 256), &head, sizeof(head));
	memcpy(avail + 2, &index, sizeof(index));
}

/* Lengths, flags, indices and addresses, where they may be. It stops for maps to change. */
static void *
race(void *arg)
{
	static const uint32_t words[] = {0, 1, 2, 3, 4, 8, 0x10000, 0x20001, 0x40000000, 0x41000000,
		0x4100ffff, 0x42000000, 0xffff, 0xffffffff, 12, 64, 1514, 0x80, 0x8080, 0x100};
	uint64_t v;

	(void)arg;
	for (;;) {
		if (!t.race) {
			t.racing = false;
			usleep(50);
			continue;
		}
		t.racing = true;
		if (!t.race)
			continue;
		v = fuzz_random(&t.race_seed);
		*(volatile uint32_t *)(t.mem[v % 8 == 0 ? R_MEM_BUFFERS : R_MEM_RINGS] +
			(v >> 8) % (REGS_MEM_SIZE / 4) * 4) = words[(v >> 40) % DIM(words)];
	}
	return NULL;
}

static void
race_set(bool on)
{
	t.race = on && writable(R_MEM_RINGS) && writable(R_MEM_BUFFERS);
	while (!t.race && t.racing)
		usleep(10);
}

/* Control waits for the poller, which nobody runs meanwhile but this. See poller.c. */
int __wrap_sched_yield(void), __real_sched_yield(void);
int __wrap_nanosleep(const struct timespec *nap, struct timespec *left);
int __real_nanosleep(const struct timespec *nap, struct timespec *left);
int
__wrap_sched_yield(void)
{
	if (t.taken_over && pthread_equal(pthread_self(), t.main))
		turns(1);
	return __real_sched_yield();
}

/* On EAL's thread: it stands in for the poller that much sooner. */
int
__wrap_nanosleep(const struct timespec *nap, struct timespec *left)
{
	return nap->tv_sec == 0 && nap->tv_nsec <= 20000 ? 0 : __real_nanosleep(nap, left);
}

static void
one(const struct regs_fuzz_op *r, bool racing)
{
	const uint64_t v = value(r);
	const unsigned int q = r->a % (REGS_NB_QUEUES + 1), mem = r->a % R_MEM_MAX;
	struct vring_desc desc;
	uint16_t vector;
	unsigned int i;

	switch (r->op % R_MAX) {
	case R_READ:
		access_any(r, false);
		break;
	case R_WRITE:
		access_any(r, true);
		break;
	case R_COMMON:
		i = r->a % DIM(common_field);
		put(0, VFN_OFF_COMMON + common_field[i].offset, v, common_field[i].len);
		get(0, VFN_OFF_COMMON + VIRTIO_PCI_COMMON_MSIX, &vector, sizeof(vector));
		CHECK(vector <= REGS_NB_QUEUES || vector == NO_VECTOR);
		break;
	case R_VENDOR:
		i = r->a % DIM(vendor_field);
		put(0, VFN_OFF_VENDOR + vendor_field[i].offset, v, vendor_field[i].len);
		break;
	case R_DEVICE:
		put(VFN_REGION_BAR0, VFN_OFF_DEVICE + r->c % 64, v, (size_t)1 << r->b % 4);
		break;
	case R_NOTIFY:
		put(VFN_REGION_BAR2, (uint64_t)q * VFN_NOTIFY_STEP + r->c % 8, v,
			(size_t)1 << r->b % 4);
		break;
	case R_MSIX:
		put(VFN_REGION_BAR1, r->a % 8 * 16 + r->b % 4 * 4, v, 4);
		break;
	case R_PCI:
		put(VFN_REGION_CONFIG, r->c % 256, v, (size_t)1 << r->b % 3);
		break;
	case R_PARTS:
		for (i = 0; i < r->b % 64u; i++)
			put(VFN_REGION_BAR0, VFN_OFF_PARTS + (r->c + 8 * i) % (VFN_PARTS_SIZE - 8),
				v, 8);
		break;
	case R_SETUP:
		setup(r);
		break;
	case R_RESET:
		reset();
		break;
	case R_QUEUE:
		queue(q, r->b);
		break;
	case R_DESC:
		desc = (struct vring_desc){v, r->c, r->d, r->d >> 16};
		poke(R_MEM_RINGS, q * REGS_RING_STEP + r->b % 256 * 16, &desc, sizeof(desc));
		break;
	case R_AVAIL:
		if (q < REGS_NB_QUEUES)
			available(q, r->b, 1 + r->d % 4);
		break;
	case R_POKE:
		poke(mem, r->c, &v, (size_t)1 << r->b % 4);
		break;
	case R_FILL:
		fill(mem, r->c);
		break;
	case R_TURN:
		turns(1 + r->a % 8);
		/* Time for commands, which a thread of EAL's carries out. */
		for (i = 0; i < 10 && (r->a & 0x80) != 0; i++, turns(1))
			usleep(100);
		break;
	case R_MAP:
		race_set(false);
		map(mem, !t.mapped[mem]);
		race_set(racing);
		break;
	case R_IRQ:
		CHECK(t.link->ops->set_irq(
			      t.link, r->b % (REGS_NB_QUEUES + 1), r->a % 2 ? t.event : -1) == 0);
		break;
	default:
		CHECK(t.link->ops->set_doorbell(
			      t.link, r->b % REGS_NB_QUEUES, r->a % 2 ? t.event : -1) == 0);
		break;
	}
}

static void
take(struct snapshot *s)
{
	unsigned int q;

	memset(s, 0, sizeof(*s));
	for (q = 0; q <= REGS_NB_QUEUES; q++) {
		COMMON(queue_select, q);
		get(VFN_REGION_BAR0, VFN_OFF_COMMON, s->common[q], sizeof(s->common[q]));
		get(VFN_REGION_BAR0, VFN_OFF_VENDOR, s->vendor[q], sizeof(s->vendor[q]));
		s->common[q][offsetof(struct vfn_common_cfg, config_generation)] = 0;
	}
	COMMON(queue_select, 0);
	get(VFN_REGION_BAR0, VFN_OFF_DEVICE, s->device, 24);
	get(VFN_REGION_BAR0, VFN_OFF_ISR, &s->isr, 1);
	get(VFN_REGION_CONFIG, 0, s->pci, sizeof(s->pci));
	get(VFN_REGION_BAR1, 0, s->msix, sizeof(s->msix));
}

static void
differs(const char *what, const uint8_t *now, const uint8_t *then, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (now[i] != then[i])
			fprintf(stderr, "%s, byte %zu: 0x%02x, was 0x%02x\n", what, i, now[i],
				then[i]);
}

static void
put_back(void)
{
	unsigned int i;
	uint8_t cap;
	uint32_t v;

	get(VFN_REGION_CONFIG, 0x34, &cap, 1);
	put(VFN_REGION_CONFIG, 0x04, 0, 2);
	put(VFN_REGION_CONFIG, 0x3c, 0, 1);
	for (; cap != 0; get(VFN_REGION_CONFIG, cap + 1, &cap, 1)) {
		uint8_t id[4];

		get(VFN_REGION_CONFIG, cap, id, sizeof(id));
		if (id[0] == 0x11)
			put(VFN_REGION_CONFIG, cap + 2, 0, 2);
		for (i = 4; id[0] == 9 && id[3] == VIRTIO_PCI_CAP_PCI_CFG && i < 16; i += 4)
			put(VFN_REGION_CONFIG, cap + i, 0, 4);
	}
	VENDOR(parts_control, VFN_PARTS_GET);
	VENDOR(parts_len, 0);
	for (i = 0; i < sizeof(power_on.msix); i += sizeof(v)) {
		memcpy(&v, power_on.msix + i, sizeof(v));
		put(VFN_REGION_BAR1, i, v, sizeof(v));
	}
}

static void
must_be_as_before(void)
{
	struct snapshot now;
	unsigned int q;

	put_back();
	take(&now);
	for (q = 0; q <= REGS_NB_QUEUES; q++) {
		differs("common", now.common[q], power_on.common[q], sizeof(now.common[q]));
		differs("vendor", now.vendor[q], power_on.vendor[q], sizeof(now.vendor[q]));
	}
	differs("device", now.device, power_on.device, sizeof(now.device));
	differs("pci", now.pci, power_on.pci, sizeof(now.pci));
	differs("msix", now.msix, power_on.msix, sizeof(now.msix));
	CHECK(memcmp(&now, &power_on, sizeof(now)) == 0);
}

static void
traffic_must_pass(void)
{
	static struct frame sent, got;
	struct guest *g = guest_new(&(struct guest_conf){
		.link = t.link, .pairs = 2, .used_pairs = 1, .size = 8, .buf_len = 2048});
	const uint64_t end = now_ms() + PATIENCE_MS;
	bool passed;

	guest_start(g);
	frame_make(&sent, 7, 200);
	rx_post(g, RXQ(0), 2, 2048, 1);
	tx_send(g, TXQ(0), &sent);
	/* The function may have its hands full with a command of before, on a thread of EAL's. */
	do {
		turns(4);
		passed = rx_try(g, RXQ(0), &got, 0);
	} while (!passed && now_ms() < end);
	CHECK(passed);
	frames_equal(&got, &sent);
	guest_close(g);
}

static void
close_function(void)
{
	t.taken_over = false;
	t.link->ops->close(t.link);
}

static void
open_function(void)
{
	const struct guest_conf conf = {.pairs = 2, .wiring = VFN_WIRING_LOOPBACK};
	unsigned int i;
	uint32_t half;

	CHECK(turns_eal_init() == 0);
	if (getenv("FUZZ_TRACE") == NULL)
		rte_log_set_global_level(RTE_LOG_CRIT);
	CHECK(function_open(&conf, &t.fn, &t.link) == 0);
	turns_take_over();
	atexit(close_function);
	t.main = pthread_self();
	t.taken_over = true;
	t.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (i = 0; i < 2; i++) {
		COMMON(device_feature_select, i);
		get(VFN_REGION_BAR0,
			VFN_OFF_COMMON + offsetof(struct vfn_common_cfg, device_feature), &half, 4);
		t.offered |= (uint64_t)half << 32 * i;
	}
	for (i = 0; i < R_MEM_MAX; i++) {
		t.mem[i] = mmap(NULL, REGS_MEM_SIZE + 0x2000, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(t.mem[i] != MAP_FAILED);
		t.mem[i] += 0x1000;
	}
	reset();
	take(&power_on);
	CHECK(pthread_create(&t.thread, NULL, race, NULL) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct regs_fuzz_head head;
	struct regs_fuzz_op r;
	unsigned int i;
	bool racing;

	if (size < sizeof(head))
		return 0;
	memcpy(&head, data, sizeof(head));
	if (t.fn == NULL)
		open_function();
	for (i = 0; i < R_MEM_MAX; i++) {
		map(i, true);
		if (i != R_MEM_READ_ONLY)
			memset(t.mem[i], 0, REGS_MEM_SIZE);
	}
	racing = head.flags & REGS_FUZZ_RACE;
	t.race_seed = head.seed;
	race_set(racing);
	for (i = 0; i < REGS_FUZZ_OPS && sizeof(head) + (i + 1) * sizeof(r) <= size; i++) {
		memcpy(&r, data + sizeof(head) + i * sizeof(r), sizeof(r));
		one(&r, racing);
	}
	turns(2);
	race_set(false);
	reset();
	turns(1);
	for (i = 0; i < R_MEM_MAX; i++)
		map(i, false);
	for (i = 0; i <= REGS_NB_QUEUES; i++)
		CHECK(t.link->ops->set_irq(t.link, i, -1) == 0);
	for (i = 0; i < REGS_NB_QUEUES; i++)
		CHECK(t.link->ops->set_doorbell(t.link, i, -1) == 0);
	must_be_as_before();
	traffic_must_pass();
	return 0;
}
