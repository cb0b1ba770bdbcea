// SPDX-License-Identifier: BSD-3-Clause
//
// libvring in C++: the header is C that C++ compilers take.
//
//	c++ -o vring_in_cpp vring_in_cpp.cc $(pkg-config --cflags --libs libvring)

#include <cstdio>

#include <vringh.h>

int main()
{
	vringh_config config{};
	vringh queue;

	config.packed = true;
	config.state = VRINGH_PACKED_START;
	config.size = VRINGH_MAX_SIZE + 1;
	std::printf("%s\n", vringh_strerror(vringh_init(&queue, &config)));
	return vringh_pending(&queue) ? 1 : 0;
}
