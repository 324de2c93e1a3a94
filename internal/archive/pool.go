package archive

import "sync"

// pool is a typed sync.Pool. make may be nil if only take and put are used.
type pool[T any] struct {
	p    sync.Pool
	make func() T
}

func (p *pool[T]) take() (T, bool) {
	v, ok := p.p.Get().(T)
	return v, ok
}

func (p *pool[T]) get() T {
	if v, ok := p.take(); ok {
		return v
	}
	return p.make()
}

func (p *pool[T]) put(v T) { p.p.Put(v) }
