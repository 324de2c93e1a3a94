package restore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

// moments are those of a group at which its destination may go away: what is set
// is called then.
type moments struct {
	opening, looking, reading, streaming, committing func()
}

func (m moments) pass(f func()) {
	if f != nil {
		f()
	}
}

// arrange makes a shelf and a destination pass the moments.
func (m moments) arrange(s *shelf, newGroup NewGroup) NewGroup {
	s.lookup = func(ctx context.Context, ts []string) (map[string]schemas.Artifact, error) {
		m.pass(m.looking)
		return s.artifacts, ctx.Err()
	}
	s.blobs = func(_ context.Context, ids []string, each func(string, []byte) error) error {
		m.pass(m.reading)
		for _, id := range ids {
			if err := each(id, s.content[id]); err != nil {
				return err
			}
		}
		return nil
	}
	s.open = func(_ context.Context, a schemas.Artifact) (io.ReadCloser, error) {
		c := s.content[a.ID]
		half := len(c) / 2
		then := reader(func([]byte) (int, error) { m.pass(m.streaming); return 0, io.EOF })
		return io.NopCloser(io.MultiReader(bytes.NewReader(c[:half]), then, bytes.NewReader(c[half:]))), nil
	}
	return func(settings schemas.Settings, n int) (Group, error) {
		m.pass(m.opening)
		g, err := newGroup(settings, n)
		return committing{g, func() { m.pass(m.committing) }}, err
	}
}

// committing is a group before whose commit something happens.
type committing struct {
	Group
	before func()
}

func (c committing) Commit(ctx context.Context, settled func(slot int, err error)) {
	c.before()
	c.Group.Commit(ctx, settled)
}

// intoBucket opens the bucket anew for each group. A server that says nothing for
// the time of stall has stalled.
func intoBucket(t testing.TB, srv *s3test.Server, bucket string, stall time.Duration) NewGroup {
	t.Helper()
	store, err := objects.Open(objects.Config{
		Endpoint: srv.Endpoint(), AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Stall: stall,
	})
	must(t, err)
	t.Cleanup(store.Close)
	return func(s schemas.Settings, n int) (Group, error) {
		b, err := destination.OpenBucket(store, bucket, "p")
		if err != nil {
			return nil, err
		}
		return b.Group(s, n), nil
	}
}

// bucketContents are the SHA-256 of the objects of a bucket by name.
func bucketContents(t testing.TB, srv *s3test.Server, bucket string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for o := range srv.Client().ListObjects(context.Background(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		must(t, o.Err)
		body, err := srv.Client().GetObject(context.Background(), bucket, o.Key, minio.GetObjectOptions{})
		must(t, err)
		content, err := io.ReadAll(body)
		must(t, err)
		must(t, body.Close())
		found[strings.TrimPrefix(o.Key, "p/")] = sum(content)
	}
	return found
}

// A destination that goes away is no fault of the items: the group as a whole has
// an error whose class says so, and nothing is judged. When it is back the same
// group is restored.
func TestTheDestinationGoesAway(t *testing.T) {
	t.Parallel()
	small, streamed := [][]byte{tiny, []byte("more"), nil}, noise(1, 20<<20) // in several parts
	crowd := make([][]byte, 10)                                              // more than is held in memory for the commit
	for i := range crowd {
		crowd[i] = noise(7, 7<<20)
	}
	for name, tt := range map[string]struct {
		contents [][]byte
		moments  func(away, back func()) moments
		frozen   []bool // else it is killed
	}{
		"opening":   {small, func(away, _ func()) moments { return moments{opening: away} }, []bool{false}},
		"comparing": {small, func(away, _ func()) moments { return moments{looking: away} }, []bool{false}},
		// That it is back for the commit of the other items changes nothing.
		"staging small ones":  {crowd, func(away, back func()) moments { return moments{reading: away, committing: back} }, []bool{false}},
		"streaming":           {[][]byte{tiny, streamed}, func(away, back func()) moments { return moments{streaming: away, committing: back} }, []bool{false, true}},
		"committing small":    {small, func(away, _ func()) moments { return moments{committing: away} }, []bool{false, true}},
		"committing a stream": {[][]byte{streamed}, func(away, _ func()) moments { return moments{committing: away} }, []bool{false}},
	} {
		for _, frozen := range tt.frozen {
			t.Run(fmt.Sprintf("%s, frozen %v", name, frozen), func(t *testing.T) {
				t.Parallel()
				srv := s3test.StartOwnServer(t)
				bucket := srv.Bucket(t)
				away, back := srv.Kill, func() { srv.Start(t) }
				if frozen {
					away, back = func() { srv.Freeze(t) }, srv.Thaw
				}
				s, m := newShelf(tt.contents...), tt.moments(away, back)
				settings := schemas.Settings{Root: "s3://" + bucket + "/p"}
				cfg, items := Config{Memory: 2 << 30, Threads: 4}, s.requests()
				if len(tt.contents) < len(crowd) {
					cfg.Memory = MinMemory
				}
				results, err := New(s, plain, m.arrange(s, intoBucket(t, srv, bucket, time.Second)), cfg).Restore(t.Context(), settings, items)
				if results != nil || fault.CodeOf(err) != schemas.CodeDestinationDown || fault.CodeOf(err).Class() != schemas.ClassBackendDown {
					t.Errorf("results %+v, error %v (%s)", results, err, fault.CodeOf(err))
				}
				back()
				results, err = New(s, plain, moments{}.arrange(s, intoBucket(t, srv, bucket, time.Minute)), cfg).Restore(t.Context(), settings, items)
				must(t, err)
				want := map[string]string{}
				for i, v := range verdicts(results) {
					if v != restored {
						t.Errorf("afterwards: item %d: %+v", i, results[i])
					}
					want[fmt.Sprintf("out/%d", i)] = sum(tt.contents[i])
				}
				if diff := cmp.Diff(want, bucketContents(t, srv, bucket)); diff != "" {
					t.Errorf("objects (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// What is wrong with the destination for good is the items' result.
func TestNoBucket(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	s := newShelf(tiny, large)
	results, err := New(s, plain, intoBucket(t, srv, "nowhere", time.Minute), Config{}).
		Restore(t.Context(), schemas.Settings{Root: "s3://nowhere/p"}, s.requests())
	must(t, err)
	want := []verdict{failed(schemas.CodeDestinationMissing), failed(schemas.CodeDestinationMissing)}
	if diff := cmp.Diff(want, verdicts(results)); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}
