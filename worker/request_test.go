package worker

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/exhume/exhume/schemas"
)

// fakeMessage is a message of which nothing is known but what it says.
type fakeMessage struct {
	data        string
	first, last int64 // beside it, unless first is negative
	id          string
}

func (m fakeMessage) Data() []byte                  { return []byte(m.data) }
func (m fakeMessage) Indexes() (_, _ int64, _ bool) { return m.first, m.last, m.first >= 0 }
func (m fakeMessage) PublishedAt() time.Time        { return time.Unix(1, 0) }
func (m fakeMessage) Single() (string, int64)       { return m.id, 77 }
func (m fakeMessage) Redelivered() bool             { return false }
func (m fakeMessage) Deliveries() int               { return 1 }
func (m fakeMessage) Ack() error                    { return nil }
func (m fakeMessage) Nak(time.Duration) error       { return nil }
func (m fakeMessage) Alive() error                  { return nil }

func TestDecode(t *testing.T) {
	t.Parallel()
	const none = -1
	for _, c := range []struct {
		name, data  string
		first, last int64
		want        string // good, bad or foreign
		items       int
	}{
		{"one", `{"batch":"b","first":3,"items":[{}]}`, 3, 3, "good", 1},
		{"many", `{"batch":"b","first":3,"items":[{},{},{}]}`, 3, 5, "good", 3},
		{"nothing beside", `{"batch":"b","first":3,"items":[{},{}]}`, none, 0, "good", 2},
		{"other first beside", `{"batch":"b","first":3,"items":[{},{}]}`, 4, 5, "bad", 2},
		{"other last beside", `{"batch":"b","first":3,"items":[{},{}]}`, 3, 5, "bad", 3},
		{"nonsense beside", `{"batch":"b","first":3,"items":[{},{}]}`, 5, 3, "good", 2},
		{"no items", `{"batch":"b","first":3,"items":[]}`, none, 0, "foreign", 0},
		{"no items, some beside", `{"batch":"b","first":3,"items":[]}`, 3, 4, "bad", 2},
		{"too many items", `{"batch":"b","items":[{}` + strings.Repeat(",{}", schemas.MaxRequests) + `]}`, none, 0, "foreign", 0},
		{"too many items beside", `hello`, 0, 1 << 40, "foreign", 0},
		{"too high an index", `{"batch":"b","first":9223372036854775807,"items":[{},{}]}`, none, 0, "foreign", 0},
		{"other batch", `{"batch":"c","first":3,"items":[{}]}`, none, 0, "foreign", 0},
		{"other batch, indexes beside", `{"batch":"c","first":3,"items":[{}]}`, 3, 3, "bad", 1},
		{"wrong type", `{"batch":"b","first":3,"items":[{"tombstone":7}]}`, 3, 3, "bad", 1},
		{"no JSON", `hello`, none, 0, "foreign", 0},
		{"no JSON, indexes beside", "\x00\xff", 9, 10, "bad", 2},
		{"cut off", `{"batch":"b","first":3,"items":[{"tombst`, 3, 3, "bad", 1},
		{"empty", ``, 0, 0, "bad", 1},
		{"negative", `{"batch":"b","first":-1,"items":[{}]}`, none, 0, "foreign", 0},
		{"null", `null`, none, 0, "foreign", 0},
		{"array", `[1]`, 2, 2, "bad", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := decode("b", []Message{fakeMessage{data: c.data, first: c.first, last: c.last}}, false)
			want := map[string][3]int{"good": {c.items, 0, 0}, "bad": {0, c.items, 0}, "foreign": {0, 0, 1}}[c.want]
			if got := [3]int{len(d.good), len(d.bad), len(d.foreign)}; got != want || len(d.failed) != len(d.bad) {
				t.Fatalf("got %v items, want %v; failed %v", got, want, d.failed)
			}
			first := c.first
			if c.want == "good" {
				first = 3
			}
			for i, h := range slices.Concat(d.good, d.bad) {
				if h.request.Batch != "b" || h.request.Index != first+int64(i) || !h.request.Published.Equal(time.Unix(1, 0)) || h.of.items != c.items {
					t.Errorf("got %+v", h)
				}
			}
			for _, r := range d.failed {
				if r.Code != schemas.CodeBadRequest || r.Outcome != schemas.OutcomeFailed || !strings.Contains(r.Detail, "payload ") {
					t.Errorf("got %+v", r)
				}
			}
		})
	}
}

// A request that is published again is not tried before its time, unless it has
// been waited for already.
func TestDecodeEarly(t *testing.T) {
	t.Parallel()
	text := func(at time.Time) string {
		g := schemas.RequestGroup{Batch: "b", First: 3, Items: make([]schemas.RequestItem, 1), Published: time.Unix(7, 0).UTC(), NotBefore: at.UTC()}
		data, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	later := fakeMessage{data: text(time.Now().Add(time.Hour)), first: 3, last: 3}
	d := decode("b", []Message{later, redelivered{later}, fakeMessage{data: text(time.Now()), first: 3, last: 3}}, false)
	if len(d.early) != 1 || len(d.good) != 2 || len(d.msgs) != 2 {
		t.Fatalf("early %d, good %d", len(d.early), len(d.good))
	}
	if at := decode("b", []Message{later}, true); len(at.early) != 0 || len(at.good) != 1 {
		t.Errorf("early %d, good %d although time does not matter", len(at.early), len(at.good))
	}
	if h := d.good[1]; !h.request.Published.Equal(time.Unix(7, 0)) || h.of.retryAt.IsZero() {
		t.Errorf("got %+v", h)
	}
}

// A request that somebody published alone always gets a result, which names it.
func TestDecodeSingle(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, data, id, wantID, problem string
	}{
		{"whole", `{"tombstone":"t","output":"o","actor":"a","labels":{"k":"v"},"more":1}`, "x-1", "x-1", ""},
		{"no JSON", "\xff", "x-1", "x-1", "invalid character"},
		{"wrong type", `{"tombstone":7}`, "x-1", "x-1", "cannot unmarshal"},
		{"no tombstone", `{"output":"o","actor":"a"}`, "x-1", "x-1", "no tombstone"},
		{"no output", `{"tombstone":"t","actor":"a"}`, "x-1", "x-1", "no output"},
		{"no actor", `{"tombstone":"t","output":"o"}`, "x-1", "x-1", "no actor"},
		{"bad id", `{"tombstone":"t","output":"o","actor":"a"}`, "a.>", "seq-77", `its id "a.>"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := decode(schemas.Single, []Message{fakeMessage{data: c.data, first: -1, id: c.id}}, false)
			items := slices.Concat(d.good, d.bad)
			if len(items) != 1 || (len(d.good) == 1) != (c.problem == "") {
				t.Fatalf("got %+v", d)
			}
			if r := items[0].request; r.Batch != schemas.Single || r.Index != 77 || r.Labels[schemas.LabelRequestID] != c.wantID {
				t.Errorf("got %+v", r)
			}
			if len(d.failed) == 1 && (d.failed[0].Code != schemas.CodeBadRequest || !strings.Contains(d.failed[0].Detail, c.problem)) {
				t.Errorf("got %+v", d.failed[0])
			}
		})
	}
}

type redelivered struct{ fakeMessage }

func (redelivered) Redelivered() bool { return true }

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"batch":"b","first":3,"items":[{"tombstone":"t"}]}`), int64(3), int64(3))
	f.Add([]byte(`{"batch":"b","FIRST":3e2,"items":[{}]}`), int64(-1), int64(0))
	f.Add([]byte(`{"batch":{},"first":-0,"items":[]}`), int64(5), int64(9))
	f.Fuzz(func(t *testing.T, data []byte, first, last int64) {
		d := decode("b", []Message{fakeMessage{data: string(data), first: max(first, -1), last: last}}, false)
		beside := first >= 0 && last >= first && last-first < schemas.MaxRequests
		switch n := len(d.good) + len(d.bad); {
		case len(d.failed) != len(d.bad), len(d.foreign) > 0 && n > 0, len(d.foreign)+len(d.early)+n == 0:
			t.Fatalf("%+v", d)
		case beside && len(d.early) == 0 && int64(n) != last-first+1:
			t.Errorf("%d items, want those from %d to %d", n, first, last)
		}
		for i, h := range slices.Concat(d.good, d.bad) {
			if h.request.Index < 0 || h.request.Batch != "b" || beside && h.request.Index != first+int64(i) {
				t.Errorf("got %+v", h.request)
			}
		}
		for _, r := range d.failed {
			if r.Detail = oneLine(r.Detail); strings.ContainsAny(r.Detail, "\r\n") {
				t.Errorf("detail %q", r.Detail)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		}
	})
}
