package producer

import (
	"context"
	"fmt"
	"iter"

	"github.com/lanrat/extsort"
)

// sortChunk is how many strings are sorted in memory at a time. Up to five
// chunks are under way at once, so about 160 MiB if every output is as long as
// the system allows, and 4 MiB with usual ones. Merging takes 64 KiB for each
// chunk, but no more than 64 MiB.
const sortChunk = 8192

// sorter sorts any number of strings bytewise in bounded memory, with a
// temporary file if there are more than sortChunk.
type sorter struct {
	ctx    context.Context
	in     chan string
	sorted <-chan string
	errs   <-chan error
	ready  chan struct{} // closed when nothing more is taken in
	cancel context.CancelFunc
}

func newSorter(ctx context.Context, dir string) *sorter {
	ctx, cancel := context.WithCancel(ctx)
	in := make(chan string, 1024)
	sort, sorted, errs := extsort.Strings(in, &extsort.Config{
		ChunkSize: sortChunk, NumWorkers: 1, SortedChanBuffSize: 1024, TempFilesDir: dir,
	})
	s := &sorter{ctx: ctx, in: in, sorted: sorted, errs: errs, ready: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(s.ready)
		sort.Sort(ctx)
	}()
	return s
}

// add takes one string in.
func (s *sorter) add(v string) error {
	select {
	case s.in <- v:
		return nil
	case <-s.ready:
		return s.failure()
	}
}

// all yields what was taken in, in order. It is used once, after the last add.
func (s *sorter) all() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		close(s.in)
		<-s.ready
		for v := range s.sorted {
			if !yield(v, nil) {
				return
			}
		}
		if err := s.failure(); err != nil {
			yield("", err)
		}
	}
}

func (s *sorter) failure() error {
	err := <-s.errs
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if err != nil {
		return fmt.Errorf("sort outputs: %w; TMPDIR says where temporary files go", err)
	}
	return nil
}

// close ends the sorter's goroutines and removes its file, done or not.
func (s *sorter) close() {
	s.cancel()
	<-s.ready
	for range s.sorted { // ends soon: the sorter closes it when it has stopped
	}
}
