static inline uint32_t
vringh_size(const struct vringh *vr)
{
	return vr->size;
}
static inline bool
vringh_is_packed(const struct vringh *vr)
{
	return vr->packed;
}
static inline uint32_t
vringh_walked(const struct vringh *vr)
{
	return vr->walked;
}
static inline void *
vringh_area(const struct vringh *vr, unsigned int i)
{
	return vr->area_host[i];
}
