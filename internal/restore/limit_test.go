package restore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// slow is a group in which something takes its time before it is done.
type slow struct {
	Group
	comparing, writing, filling func(ctx context.Context, slot int) error
	committing                  func(ctx context.Context) error
	settling                    func(slot int)
}

func (g *slow) Compare(ctx context.Context, slot int, output string, size int64, sum string) (bool, time.Time, error) {
	if g.comparing != nil {
		if err := g.comparing(ctx, slot); err != nil {
			return false, time.Time{}, err
		}
	}
	return g.Group.Compare(ctx, slot, output, size, sum)
}

func (g *slow) Write(ctx context.Context, slot int, output string, size int64, sum string, fill func(io.Writer) error) error {
	if g.writing != nil {
		if err := g.writing(ctx, slot); err != nil {
			return err
		}
	}
	return g.Group.Write(ctx, slot, output, size, sum, func(w io.Writer) error {
		if g.filling != nil {
			if err := g.filling(ctx, slot); err != nil {
				return err
			}
		}
		return fill(w)
	})
}

func (g *slow) Commit(ctx context.Context, settled func(int, error)) {
	if g.committing != nil {
		_ = g.committing(ctx)
	}
	g.Group.Commit(ctx, func(slot int, err error) {
		if g.settling != nil {
			g.settling(slot)
		}
		settled(slot, err)
	})
}

// Whatever takes longer than an item may is given up, when it obeys its context and
// when the kernel holds it. What is one item's own fails that item alone; the rest
// fails the group. When the kernel lets go nothing more happens.
func TestItemTimeout(t *testing.T) {
	t.Parallel()
	small, big := []byte("small"), noise(3, 300<<10)
	const limit = time.Minute
	for name, tt := range map[string]struct {
		hang func(s *shelf, g *slow, wait func(context.Context, int) error)
		// What the items that have failed say; without any the group has.
		failed map[int]string
		says   string
	}{
		"look-up": {hang: func(s *shelf, _ *slow, wait func(context.Context, int) error) {
			s.lookup = func(ctx context.Context, _ []string) (map[string]schemas.Artifact, error) {
				return s.artifacts, wait(ctx, 0)
			}
		}, says: "given up after 1m0s: looking 3 tombstones up"},
		"blobs": {hang: func(s *shelf, _ *slow, wait func(context.Context, int) error) {
			s.blobs = func(ctx context.Context, ids []string, each func(string, []byte) error) error {
				must(t, each(ids[0], small))
				return wait(ctx, 0)
			}
		}, says: "given up after 1m0s: reading 2 artifacts of 9 bytes together"},
		"opening a stream": {hang: func(s *shelf, _ *slow, wait func(context.Context, int) error) {
			s.open = func(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(big)), wait(ctx, 1)
			}
		}, failed: map[int]string{1: `given up after 1m0s: tombstone "t1": 0 of its 307200 bytes had passed`}},
		"in a stream": {hang: func(s *shelf, _ *slow, wait func(context.Context, int) error) {
			s.open = func(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(bytes.NewReader(big[:1000]), reader(func([]byte) (int, error) { return 0, wait(ctx, 1) }))), nil
			}
		}, failed: map[int]string{1: `given up after 1m0s: tombstone "t1": 1000 of its 307200 bytes had passed`}},
		"a stream that drips": {hang: func(s *shelf, _ *slow, _ func(context.Context, int) error) {
			s.open = func(context.Context, schemas.Artifact) (io.ReadCloser, error) {
				all := bytes.NewReader(big)
				return io.NopCloser(reader(func(p []byte) (int, error) {
					time.Sleep(7 * time.Second) // of the bubble's clock
					return all.Read(p[:1])
				})), nil
			}
		}, failed: map[int]string{1: `given up after 1m0s: tombstone "t1": 8 of its 307200 bytes had passed`}},
		"comparing": {hang: func(_ *shelf, g *slow, wait func(context.Context, int) error) { g.comparing = wait },
			failed: map[int]string{1: `given up after 1m0s: tombstone "t1": comparing its 307200 bytes with what stands under output "out/1"`}},
		"staging": {hang: func(_ *shelf, g *slow, wait func(context.Context, int) error) { g.writing = wait },
			failed: map[int]string{1: `given up after 1m0s: tombstone "t1": 0 of its 307200 bytes had passed`}},
		"writing": {hang: func(_ *shelf, g *slow, wait func(context.Context, int) error) { g.filling = wait },
			failed: map[int]string{1: `given up after 1m0s: tombstone "t1": 0 of its 307200 bytes had passed`}},
		"writing a small one": {hang: func(_ *shelf, g *slow, wait func(context.Context, int) error) {
			g.filling = func(ctx context.Context, slot int) error { return wait(ctx, slot+1) }
		}, failed: map[int]string{0: `given up after 1m0s: tombstone "t0": writing its 5 bytes`}},
		"committing": {hang: func(_ *shelf, g *slow, wait func(context.Context, int) error) {
			g.committing = func(ctx context.Context) error { return wait(ctx, 1) }
		}, says: "given up after 1m0s: making 3 items durable"},
	} {
		for _, stuck := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in the kernel %v", name, stuck), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newShelf(small, big, []byte("more"))
					root := t.TempDir()
					to := openTree(t, root)
					letGo := make(chan struct{})
					// Item 1 hangs, and whatever concerns no item.
					wait := func(ctx context.Context, slot int) error {
						switch {
						case slot > 1:
							return nil
						case stuck:
							<-letGo
							return nil
						}
						<-ctx.Done()
						return ctx.Err()
					}
					g := &slow{}
					tt.hang(s, g, func(ctx context.Context, slot int) error {
						if tt.failed != nil && slot == 0 {
							return nil
						}
						return wait(ctx, slot)
					})
					r := New(s, plain, func(settings schemas.Settings, n int) (Group, error) {
						g.Group = to.Group(settings, n)
						return g, nil
					}, Config{Memory: MinMemory, Threads: 2, ItemTimeout: limit})
					start := time.Now()
					results, err := r.Restore(t.Context(), schemas.Settings{Root: root}, s.requests())
					if took := time.Since(start); took < limit || took > limit+2*patience+abortPatience {
						t.Errorf("it took %v", took)
					}
					want := map[string]string{}
					if tt.failed == nil {
						if results != nil || !fault.Is(err, schemas.CodeItemTimeout) || err.Error() != tt.says {
							t.Errorf("results %v, error %v", results, err)
						}
					} else {
						must(t, err)
						for i, r := range results {
							text, failed := tt.failed[i]
							if failed != (r.Outcome == schemas.OutcomeFailed) || r.Detail != text || failed && r.Code != schemas.CodeItemTimeout {
								t.Errorf("item %d: %s %s %q", i, r.Outcome, r.Code, r.Detail)
							}
							if !failed {
								want[r.Output] = string(s.content[fmt.Sprint("a", i)])
							}
						}
					}
					close(letGo)
					time.Sleep(time.Minute) // of the bubble's clock, for whatever was left behind
					if !r.memory.TryAcquire(r.capacity) {
						t.Error("memory was not given back")
					}
					if diff := cmp.Diff(want, tree(t, root)); diff != "" {
						t.Errorf("files (-want +got):\n%s", diff)
					}
				})
			})
		}
	}
}

func openTree(t *testing.T, root string) *destination.Tree {
	t.Helper()
	tree, err := destination.OpenTree(root)
	must(t, err)
	t.Cleanup(func() { must(t, tree.Close()) })
	return tree
}

// What the kernel holds keeps its memory, and nobody else: others restore what fits
// beside it.
func TestStuckItemKeepsItsMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(tiny, large)
		root, letGo := t.TempDir(), make(chan struct{})
		to := openTree(t, root)
		var writing func(context.Context, int) error
		r := New(s, plain, func(settings schemas.Settings, n int) (Group, error) {
			return &slow{Group: to.Group(settings, n), filling: writing}, nil
		}, Config{Memory: MinMemory, ItemTimeout: time.Minute})
		writing = func(_ context.Context, slot int) error {
			if slot == 1 {
				<-letGo
			}
			return nil
		}
		settings := schemas.Settings{Root: root}
		results, err := r.Restore(t.Context(), settings, s.requests())
		must(t, err)
		if diff := cmp.Diff([]verdict{restored, failed(schemas.CodeItemTimeout)}, verdicts(results)); diff != "" {
			t.Errorf("verdicts (-want +got):\n%s", diff)
		}
		held(t, r, int64(len(large)), "stuck")

		writing = nil
		results, err = r.Restore(t.Context(), settings, s.requests())
		must(t, err)
		if diff := cmp.Diff([]verdict{restored, restored}, verdicts(results)); diff != "" {
			t.Errorf("afterwards: verdicts (-want +got):\n%s", diff)
		}
		close(letGo)
		synctest.Wait()
		if !r.memory.TryAcquire(r.capacity) {
			t.Error("memory was not given back")
		}
		if diff := cmp.Diff(map[string]string{"out/0": string(tiny), "out/1": string(large)}, tree(t, root)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	})
}

// The timeout of a network looks like the end of a context, and is none: what has a
// code is the item's own.
func TestNetworkTimeoutIsNoDeadline(t *testing.T) {
	t.Parallel()
	s := newShelf(tiny, large)
	stalled := fault.New(schemas.CodeDestinationBusy, "stalled: %w", &net.OpError{Op: "read", Err: context.DeadlineExceeded})
	s.open = func(context.Context, schemas.Artifact) (io.ReadCloser, error) { return nil, stalled }
	_, results, err := restoreAll(t, t.Context(), s)
	must(t, err)
	if diff := cmp.Diff([]verdict{restored, failed(schemas.CodeDestinationBusy)}, verdicts(results)); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

// The time that an item waits for memory is not its own.
func TestWaitingForMemoryDoesNotCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(large)
		root := t.TempDir()
		to := openTree(t, root)
		r := New(s, plain, func(settings schemas.Settings, n int) (Group, error) { return to.Group(settings, n), nil },
			Config{Memory: MinMemory, ItemTimeout: time.Minute})
		must(t, r.memory.Acquire(t.Context(), r.capacity))
		time.AfterFunc(time.Hour, func() { r.memory.Release(r.capacity) })
		results, err := r.Restore(t.Context(), schemas.Settings{Root: root}, s.requests())
		must(t, err)
		if diff := cmp.Diff([]verdict{restored}, verdicts(results)); diff != "" {
			t.Errorf("verdicts (-want +got):\n%s", diff)
		}
	})
}

// An object that is not placed in time is given up alone: others that were placed
// meanwhile have their results, however long all take together.
func TestOnePlacingHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShelf([]byte("a"), []byte("b"), []byte("c"), []byte("d"))
		r := New(s, plain, func(schemas.Settings, int) (Group, error) { return &parallel{hangs: []int{2}}, nil },
			Config{ItemTimeout: time.Minute})
		results, err := r.Restore(t.Context(), schemas.Settings{Root: "s3://b"}, s.requests())
		must(t, err)
		want := []verdict{restored, restored, failed(schemas.CodeItemTimeout), restored}
		if diff := cmp.Diff(want, verdicts(results)); diff != "" {
			t.Errorf("verdicts (-want +got):\n%s", diff)
		}
		if detail := results[2].Detail; !strings.Contains(detail, "after 1m0s: making 1 items durable") {
			t.Errorf("detail %q", detail)
		}
	})
}

// parallel is a group that places an object after the other, each in less than a
// minute, but for those that hang.
type parallel struct {
	hangs []int
	mu    sync.Mutex
	slots []int
}

func (*parallel) Compare(context.Context, int, string, int64, string) (bool, time.Time, error) {
	return false, time.Time{}, fs.ErrNotExist
}

func (p *parallel) Write(_ context.Context, slot int, _ string, _ int64, _ string, fill func(io.Writer) error) error {
	p.mu.Lock()
	p.slots = append(p.slots, slot)
	p.mu.Unlock()
	return fill(io.Discard)
}

func (p *parallel) Commit(ctx context.Context, settled func(int, error)) {
	for _, slot := range p.slots {
		if !slices.Contains(p.hangs, slot) {
			time.Sleep(50 * time.Second) // of the bubble's clock
			settled(slot, nil)
		}
	}
	<-ctx.Done()
	for _, slot := range p.hangs {
		settled(slot, ctx.Err())
	}
}

func (*parallel) Abort() {}

// A commit that has begun is waited for a moment when the context ends, and its
// results count if they are complete.
func TestCancelledWhileCommitting(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]error{patience / 2: nil, 2 * patience: context.Canceled} {
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(tiny)
			root := t.TempDir()
			to := openTree(t, root)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r := New(s, plain, func(settings schemas.Settings, n int) (Group, error) {
				return &slow{Group: to.Group(settings, n), settling: func(int) {
					cancel()
					time.Sleep(took) // of the bubble's clock
				}}, nil
			}, Config{})
			results, err := r.Restore(ctx, schemas.Settings{Root: root}, s.requests())
			if err != want || (results == nil) != (want != nil) { //nolint:errorlint // it comes as it is
				t.Errorf("%v: results %v, error %v", took, results, err)
			}
			synctest.Wait()
			time.Sleep(2 * patience) // of the bubble's clock
		})
	}
}

// A destination that takes too long to open fails the items. Should it open after
// all, nothing is left of that.
func TestOpeningTakesTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(tiny, large)
		aborted := make(chan struct{})
		r := New(s, plain, func(schemas.Settings, int) (Group, error) {
			time.Sleep(time.Hour) // of the bubble's clock
			return abortable{aborted: aborted}, nil
		}, Config{ItemTimeout: time.Minute})
		results, err := r.Restore(t.Context(), schemas.Settings{Root: "/r"}, s.requests())
		must(t, err)
		want := []verdict{failed(schemas.CodeItemTimeout), failed(schemas.CodeItemTimeout)}
		if diff := cmp.Diff(want, verdicts(results)); diff != "" {
			t.Errorf("verdicts (-want +got):\n%s", diff)
		}
		<-aborted
	})
}

type abortable struct {
	Group
	aborted chan struct{}
}

func (a abortable) Abort() { close(a.aborted) }
