/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What is agreed with lib/vfio_user's server, and in which JSON; and the room that answers have.
 */

#include "vfu_tests.h"

#define ARRAY(a) (sizeof(a) / sizeof((a)[0]))

/* ---- versions ---- */

/* Its answer is left in vt_got; 0, or the error. */
static int
version(uint16_t major, uint16_t minor, const char *json, size_t len)
{
	static uint8_t payload[VFU_MAX_PAYLOAD];
	const struct vfu_version v = {major, minor};
	int fd, ret;

	vt_wait(dev.attached == dev.detached);
	fd = vt_connect();
	memcpy(payload, &v, sizeof(v));
	if (len > 0)
		memcpy(payload + sizeof(v), json, len);
	ret = vt_ask(fd, VFU_VERSION, payload, sizeof(v) + len, NULL, 0);
	if (ret < 0)
		assert_true(vt_hung_up(fd));
	close(fd);
	return ret < 0 ? ret : 0;
}

static void
numbers_of_versions(void **state)
{
	const uint16_t majors[] = {1, 2, 0xff00, 0xffff}, minors[] = {0, 1, 2, 0xffff};
	struct vfu_version v;
	unsigned int i;

	(void)state;
	vt_open(0);
	for (i = 0; i < ARRAY(majors); i++) {
		assert_int_equal(version(majors[i], 0, NULL, 0), -EPROTO);
		assert_true(vt_logged("it wants another major version"));
	}
	for (i = 0; i < ARRAY(minors); i++) {
		assert_int_equal(version(0, minors[i], NULL, 0), 0);
		memcpy(&v, vt_got.payload, sizeof(v));
		assert_int_equal(v.major, 0);
		assert_int_equal(v.minor, minors[i] < VFU_MINOR ? minors[i] : VFU_MINOR);
	}
	vt_close();
}

static void
json_refused(const char *json, size_t len, const char *why)
{
	int ret = version(0, 1, json, len);

	if (ret != -EPROTO || !vt_logged(why))
		fail_msg("%d, and not refused with \"%s\": %.60s", ret, why, json);
}

static void
bad_json(void **state)
{
	static const char *const no_object[] = {"", "{", "}", "[]", "1", "null", "\"x\"", "{}}",
		"{\"capabilities\"}", "{\"capabilities\":}", "{'capabilities':{}}", "{} {}",
		"{\"capabilities\":{},\"capabilities\":{}}",
		"{\"capabilities\":{\"pgsizes\":4096,\"pgsizes\":4096}}", "{\"a\":\"\xff\xfe\"}",
		"{\"a\":\"\\ud800\"}", "{\"a\":\"\\u0000\"}x", "{\"\\u0000\":1}", "{\"a\":01}",
		"{\"a\":1e999}", "{\"capabilities\":{\"max_msg_fds\":99999999999999999999}}",
		"\x01"};
	static const struct {
		const char *json, *why;
	} caps[] = {
		{"[]", "\"capabilities\" is no object"},
		{"null", "\"capabilities\" is no object"},
		{"7", "\"capabilities\" is no object"},
		{"{\"max_msg_fds\":\"1\"}", "\"max_msg_fds\" is no number"},
		{"{\"max_msg_fds\":1.5}", "\"max_msg_fds\" is no number"},
		{"{\"max_msg_fds\":-1}", "\"max_msg_fds\" is no number"},
		{"{\"max_msg_fds\":null}", "\"max_msg_fds\" is no number"},
		{"{\"max_data_xfer_size\":0}", "\"max_data_xfer_size\" is no positive number"},
		{"{\"max_data_xfer_size\":-1}", "\"max_data_xfer_size\" is no positive number"},
		{"{\"max_data_xfer_size\":{}}", "\"max_data_xfer_size\" is no positive number"},
		{"{\"max_dma_maps\":0}", "\"max_dma_maps\" is no positive number"},
		{"{\"max_dma_maps\":true}", "\"max_dma_maps\" is no positive number"},
		{"{\"pgsizes\":0}", "\"pgsizes\" has no pages of 4096 bytes"},
		{"{\"pgsizes\":8192}", "\"pgsizes\" has no pages of 4096 bytes"},
		{"{\"pgsizes\":4294967296}", "\"pgsizes\" has no pages of 4096 bytes"},
		{"{\"pgsizes\":\"4096\"}", "\"pgsizes\" has no pages of 4096 bytes"},
		{"{\"write_multiple\":1}", "\"write_multiple\" is no boolean"},
		{"{\"write_multiple\":\"true\"}", "\"write_multiple\" is no boolean"},
	};
	static char big[VFU_MAX_XFER + 1];
	char json[256];
	unsigned int i;

	(void)state;
	vt_open(0);
	for (i = 0; i < ARRAY(no_object); i++)
		json_refused(no_object[i], strlen(no_object[i]) + 1, "its data is no JSON object");
	json_refused("{}", 2, "its data does not end with NUL");
	json_refused("{", 1, "its data does not end with NUL");
	for (i = 0; i < ARRAY(caps); i++) {
		snprintf(json, sizeof(json), "{\"capabilities\":%s}", caps[i].json);
		json_refused(json, strlen(json) + 1, caps[i].why);
	}
	/* As much as a message takes: of brackets, of objects, of a string, of nothing. */
	memset(big, '[', VFU_MAX_XFER);
	json_refused(big, sizeof(big), "its data is no JSON object");
	for (i = 0; i + 5 < VFU_MAX_XFER; i += 5)
		memcpy(big + i, "{\"a\":", 5);
	json_refused(big, sizeof(big), "its data is no JSON object");
	memset(big, 'x', VFU_MAX_XFER);
	memcpy(big, "{\"a\":\"", 6);
	json_refused(big, sizeof(big), "its data is no JSON object");
	memcpy(big + VFU_MAX_XFER - 2, "\"}", 2);
	assert_int_equal(version(0, 1, big, sizeof(big)), 0);
	memset(big, 0, sizeof(big));
	json_refused(big, sizeof(big), "its data is no JSON object");
	vt_close();
}

static void
capabilities(void **state)
{
	/* Of each that the client says, and of no other, the server says its own. */
	static const struct {
		const char *json, *answer;
	} said[] = {
		{"{}", "{\"capabilities\":{}}"},
		{"{\"capabilities\":{}}", "{\"capabilities\":{}}"},
		{"{\"capabilities\":{\"max_msg_fds\":1}}",
			"{\"capabilities\":{\"max_msg_fds\":16}}"},
		{"{\"capabilities\":{\"max_msg_fds\":9223372036854775807}}",
			"{\"capabilities\":{\"max_msg_fds\":16}}"},
		{"{\"capabilities\":{\"max_data_xfer_size\":1}}",
			"{\"capabilities\":{\"max_data_xfer_size\":1048576}}"},
		{"{\"capabilities\":{\"max_dma_maps\":65535}}",
			"{\"capabilities\":{\"max_dma_maps\":4096}}"},
		{"{\"capabilities\":{\"pgsizes\":2101248}}",
			"{\"capabilities\":{\"pgsizes\":4096}}"},
		{"{\"capabilities\":{\"write_multiple\":true}}",
			"{\"capabilities\":{\"write_multiple\":true}}"},
		{"{\"capabilities\":{\"write_multiple\":false}}", "{\"capabilities\":{}}"},
		{"{\"capabilities\":{\"twin_socket\":{\"supported\":true},\"x\":[1]},\"y\":2}",
			"{\"capabilities\":{}}"},
	};
	unsigned int i;

	(void)state;
	vt_open(0);
	for (i = 0; i < ARRAY(said); i++) {
		assert_int_equal(version(0, 1, said[i].json, strlen(said[i].json) + 1), 0);
		assert_string_equal((char *)vt_got.payload + 4, said[i].answer);
		assert_int_equal(vt_got.len, 4 + strlen(said[i].answer) + 1);
	}
	assert_int_equal(version(0, 1, NULL, 0), 0);
	assert_string_equal((char *)vt_got.payload + 4, "{\"capabilities\":{}}");
	vt_close();
}

static void
clients_without_descriptors(void **state)
{
	static const char none[] = "\0\0\1\0{\"capabilities\":{\"max_msg_fds\":0}}",
			  many[] = "\0\0\1\0{\"capabilities\":{\"max_msg_fds\":4294967296}}";
	const struct vfio_region_info r = {.argsz = 256, .index = VD_WHOLE};
	const struct vfu_region_io_fds io = {256, 0, VD_SPARSE, 0};
	struct vfio_region_info got;
	struct vfu_region_io_fds io_got;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_connect();
	assert_true(vt_ask(fd, VFU_VERSION, none, sizeof(none), NULL, 0) > 0);
	assert_int_equal(vt_ask(fd, VFU_DEVICE_GET_REGION_INFO, &r, sizeof(r), NULL, 0), 32);
	memcpy(&got, vt_got.payload, sizeof(got));
	assert_int_equal(got.flags, VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE);
	assert_int_equal(vt_got.nb_fds, 0);
	assert_int_equal(vt_ask(fd, VFU_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), NULL, 0), 16);
	assert_int_equal(vt_got.nb_fds, 0);
	close(fd);
	vt_wait(dev.detached == 1);
	/* More than a number of ours has room for is not none. */
	fd = vt_connect();
	assert_true(vt_ask(fd, VFU_VERSION, many, sizeof(many), NULL, 0) > 0);
	assert_int_equal(vt_ask(fd, VFU_DEVICE_GET_REGION_INFO, &r, sizeof(r), NULL, 0), 32);
	assert_int_equal(vt_got.nb_fds, 1);
	close(fd);
	vt_wait(dev.detached == 2);
	/* One, if nothing is said. */
	fd = vt_connect();
	assert_true(vt_ask(fd, VFU_VERSION, none, 4, NULL, 0) > 0);
	assert_int_equal(vt_ask(fd, VFU_DEVICE_GET_REGION_INFO, &r, sizeof(r), NULL, 0), 32);
	assert_int_equal(vt_got.nb_fds, 1);
	assert_int_equal(vt_ask(fd, VFU_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), NULL, 0), 56);
	memcpy(&io_got, vt_got.payload, sizeof(io_got));
	assert_int_equal(io_got.count, 1);
	assert_int_equal(vt_got.nb_fds, 1);
	close(fd);
	vt_close();
}

/* ---- sizes of answers ---- */

static void
room_for_answers(void **state)
{
	struct vfu_device_info info = {0};
	struct vfio_region_info r = {0};
	struct vfu_region_io_fds io = {0};
	struct vfu_irq_info irq = {0};
	struct vfu_feature f = {0, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION};
	const uint32_t full = 32 + 16 + 2 * 16;
	uint32_t got, i;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	for (i = 0; i < 16; i++) {
		info.argsz = irq.argsz = io.argsz = i;
		vt_refused(fd, VFU_DEVICE_GET_INFO, &info, sizeof(info), NULL, 0, EINVAL,
			"argsz has no room for the answer");
		vt_refused(fd, VFU_DEVICE_GET_IRQ_INFO, &irq, sizeof(irq), NULL, 0, EINVAL,
			"argsz has no room for the answer");
		vt_refused(fd, VFU_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), NULL, 0, EINVAL,
			"argsz has no room for the answer");
	}
	info.argsz = UINT32_MAX;
	assert_int_equal(vt_ask(fd, VFU_DEVICE_GET_INFO, &info, sizeof(info), NULL, 0), 16);

	r.index = VD_SPARSE;
	for (i = 0; i < 32; i++) {
		r.argsz = i;
		vt_refused(fd, VFU_DEVICE_GET_REGION_INFO, &r, sizeof(r), NULL, 0, EINVAL,
			"argsz has no room for the answer");
	}
	/* The fixed part, which says how much it would be; or all, and then the descriptor. */
	for (i = 32; i < 100; i++) {
		r.argsz = i;
		assert_int_equal(vt_ask(fd, VFU_DEVICE_GET_REGION_INFO, &r, sizeof(r), NULL, 0),
			i < full ? 32 : full);
		memcpy(&got, vt_got.payload, sizeof(got));
		assert_int_equal(got, full);
		assert_int_equal(vt_got.nb_fds, i >= full);
	}
	io.index = VD_SPARSE;
	for (i = 16; i < 150; i++) {
		io.argsz = i;
		assert_int_equal(vt_ask(fd, VFU_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), NULL, 0),
			i < 136 ? 16 : 136);
		memcpy(&got, vt_got.payload, sizeof(got));
		assert_int_equal(got, 136);
		assert_int_equal(vt_got.nb_fds, i < 136 ? 0 : VD_NB_IOEVENTFDS);
	}
	for (f.argsz = 0; f.argsz < 20; f.argsz++) {
		int ret = vt_ask(fd, VFU_DEVICE_FEATURE, &f, sizeof(f), NULL, 0);

		assert_int_equal(ret, f.argsz < 8 ? -EINVAL : f.argsz < 16 ? 8 : 16);
		memcpy(&got, vt_got.payload, sizeof(got));
		if (ret > 0)
			assert_int_equal(got, 16);
	}
	close(fd);
	vt_close();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_of_versions),
		cmocka_unit_test(bad_json),
		cmocka_unit_test(capabilities),
		cmocka_unit_test(clients_without_descriptors),
		cmocka_unit_test(room_for_answers),
	};

	vfu_timeout_ms = PATIENCE_MS;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
