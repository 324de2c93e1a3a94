package worker

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/exhume/exhume/schemas"
)

// fakeMessage is a message that remembers how it was settled.
type fakeMessage struct {
	data   string
	beside int64 // -1: none
	calls  []string
}

func (m *fakeMessage) Data() []byte           { return []byte(m.data) }
func (m *fakeMessage) Index() (int64, bool)   { return m.beside, m.beside >= 0 }
func (m *fakeMessage) PublishedAt() time.Time { return time.Unix(1, 0) }
func (m *fakeMessage) Redelivered() bool      { return false }
func (m *fakeMessage) Ack() error             { m.calls = append(m.calls, "ack"); return nil }
func (m *fakeMessage) Nak(d time.Duration) error {
	m.calls = append(m.calls, "nak "+d.String())
	return nil
}
func (m *fakeMessage) Alive() error { return nil }

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, data string
		beside     int64
		want       string // good, bad or foreign
		index      int64
	}{
		{"whole", `{"batch":"b","index":3,"tombstone":"t"}`, -1, "good", 3},
		{"whole, index beside", `{"batch":"b","index":3}`, 3, "good", 3},
		{"indexes differ", `{"batch":"b","index":3}`, 4, "bad", 4},
		{"no index", `{"batch":"b"}`, -1, "foreign", 0},
		{"index only beside", `{"batch":"b"}`, 4, "bad", 4},
		{"other batch", `{"batch":"c","index":3}`, -1, "foreign", 0},
		{"other batch, index beside", `{"batch":"c","index":3}`, 3, "bad", 3},
		{"wrong type", `{"batch":"b","index":3,"tombstone":7}`, -1, "bad", 3},
		{"wrong type of index", `{"batch":"b","index":"3"}`, -1, "foreign", 0},
		{"no JSON", `hello`, -1, "foreign", 0},
		{"no JSON, index beside", "\x00\xff", 9, "bad", 9},
		{"cut off", `{"batch":"b","index":3,"tombst`, 3, "bad", 3},
		{"empty", ``, 0, "bad", 0},
		{"negative", `{"batch":"b","index":-1}`, -1, "foreign", 0},
		{"null", `null`, -1, "foreign", 0},
		{"array", `[1]`, 2, "bad", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			good, bad, failed, foreign := decode("b", []Message{&fakeMessage{data: c.data, beside: c.beside}})
			if len(good)+len(bad)+len(foreign) != 1 || len(failed) != len(bad) {
				t.Fatalf("good %v bad %v failed %v foreign %v", good, bad, failed, foreign)
			}
			switch c.want {
			case "good":
				if len(good) != 1 || good[0].request.Index != c.index || !good[0].request.Published.Equal(time.Unix(1, 0)) {
					t.Errorf("got %+v", good)
				}
			case "bad":
				if len(bad) != 1 {
					t.Fatalf("good %v foreign %v", good, foreign)
				}
				r := failed[0]
				if r.Batch != "b" || r.Index != c.index || r.Code != schemas.CodeBadRequest || r.Outcome != schemas.OutcomeFailed ||
					!strings.Contains(r.Detail, "payload ") {
					t.Errorf("got %+v", r)
				}
			case "foreign":
				if len(foreign) != 1 {
					t.Errorf("good %v bad %v", good, bad)
				}
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"batch":"b","index":3,"tombstone":"t"}`), int64(3))
	f.Add([]byte(`{"batch":"b","INDEX":3e2}`), int64(-1))
	f.Add([]byte(`{"batch":{},"index":-0}`), int64(5))
	f.Fuzz(func(t *testing.T, data []byte, beside int64) {
		good, bad, failed, foreign := decode("b", []Message{&fakeMessage{data: string(data), beside: max(beside, -1)}})
		if len(good)+len(bad)+len(foreign) != 1 || len(failed) != len(bad) {
			t.Fatalf("good %v bad %v failed %v foreign %v", good, bad, failed, foreign)
		}
		if beside >= 0 && len(foreign) > 0 {
			t.Error("an item is lost whose index is known")
		}
		for _, h := range append(good, bad...) {
			if h.request.Index < 0 || h.request.Batch != "b" || beside >= 0 && h.request.Index != beside {
				t.Errorf("got %+v", h.request)
			}
		}
		for _, r := range failed {
			if r.Detail = oneLine(r.Detail); strings.ContainsAny(r.Detail, "\r\n") {
				t.Errorf("detail %q", r.Detail)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		}
	})
}
