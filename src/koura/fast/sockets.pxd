"""What the kernel's packet interfaces look like: sockets with control messages, TUN's virtio header. recvmmsg(2), udp(7), virtio_net.h."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "sys/uio.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev(int, const iovec *, int)

cdef extern from "unistd.h" nogil:
    ssize_t read(int, void *, size_t)

cdef extern from "errno.h" nogil:
    int errno
    int EAGAIN, EINVAL, EIO, EMSGSIZE, ENXIO

cdef extern from "poll.h" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *, unsigned long, int)
    int POLLOUT

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_wait(int, epoll_event *, int, int)
    int EPOLLIN

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)
    int nanosleep(const timespec *, timespec *)
    int CLOCK_BOOTTIME, CLOCK_REALTIME

cdef extern from "sys/socket.h" nogil:
    struct sockaddr:
        pass
    struct msghdr:
        void *msg_name
        uint32_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    size_t CMSG_SPACE(size_t)
    size_t CMSG_LEN(size_t)
    cmsghdr *CMSG_FIRSTHDR(msghdr *)
    cmsghdr *CMSG_NXTHDR(msghdr *, cmsghdr *)
    uint8_t *CMSG_DATA(cmsghdr *)
    ssize_t sendmsg(int, const msghdr *, int)
    int sendmmsg(int, mmsghdr *, unsigned int, int)
    ssize_t sendto(int, const void *, size_t, int, const sockaddr *, uint32_t)
    int recvmmsg(int, mmsghdr *, unsigned int, int, void *)
    int setsockopt(int, int, int, const void *, uint32_t)
    int MSG_DONTWAIT, MSG_TRUNC
    int AF_INET, AF_INET6, SOL_SOCKET

cdef extern from "netinet/in.h" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
    struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    struct in6_pktinfo:
        in6_addr ipi6_addr
        uint32_t ipi6_ifindex
    int IPPROTO_IP, IPPROTO_IPV6, IP_PKTINFO, IP_TOS, IP_MTU_DISCOVER, IPV6_PKTINFO, IPV6_TCLASS

cdef enum:
    SCM_TIMESTAMPNS = 35
    SOL_UDP = 17
    UDP_SEGMENT = 103
    UDP_GRO = 104
    PMTUDISC_DONT = 0
    PMTUDISC_PROBE = 3

# linux/virtio_net.h, host order as TUN has it.
cdef enum:
    NEEDS_CSUM = 1
    GSO_NONE = 0
    GSO_TCPV4 = 1
    GSO_TCPV6 = 4
    GSO_UDP_L4 = 5
    VNET_OCTETS = 10

cdef packed struct Vnet:
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset


cdef inline uint64_t boot_ns() noexcept nogil:
    """Nanoseconds since the machine started, sleep and all."""
    cdef timespec now
    clock_gettime(CLOCK_BOOTTIME, &now)
    return <uint64_t> now.tv_sec * 1000000000 + <uint64_t> now.tv_nsec


cdef inline uint64_t wall_ns() noexcept nogil:
    """The time that packets are stamped with."""
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <uint64_t> now.tv_sec * 1000000000 + <uint64_t> now.tv_nsec


cdef inline int patience_ms(uint64_t now, uint64_t until) noexcept nogil:
    """What epoll_wait takes: a part of a millisecond is a whole one, and a minute is the most."""
    cdef uint64_t left = until - now if until > now else 0
    return <int> ((left + 999999) // 1000000) if left < <uint64_t> 60 * 1000000000 else 60000
