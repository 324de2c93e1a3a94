package broker

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/schemas"
)

func TestTellOfWorker(t *testing.T) {
	t.Parallel()
	b := embed(t, t.TempDir())
	heard := make(chan *nats.Msg, 10)
	sub, err := b.nc.ChanSubscribe(schemas.SubjectsEvents, heard)
	must(t, err)
	defer sub.Unsubscribe() //nolint:errcheck // the connection is closed then
	want := schemas.WorkerEvent{
		Worker: "w", At: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
		Breaker: schemas.BreakerStatus{Of: "/srv", State: schemas.BreakerOpen, Code: schemas.CodeDestinationFull, Sick: true},
	}
	b.TellOfWorker(want)
	select {
	case m := <-heard:
		var got schemas.WorkerEvent
		must(t, json.Unmarshal(m.Data, &got))
		if diff := cmp.Diff(want, got); diff != "" || m.Subject != "exhume.event.worker.w" {
			t.Errorf("%s: %s", m.Subject, diff)
		}
	case <-t.Context().Done():
	case <-time.After(10 * time.Second):
		t.Error("nothing was heard")
	}
}
