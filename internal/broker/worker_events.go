package broker

import (
	"encoding/json"

	"github.com/exhume/exhume/schemas"
)

// TellOfWorker publishes what has happened to a worker to whoever listens. While the
// broker is away it is left out: the worker's status says how it stands.
func (b *Broker) TellOfWorker(e schemas.WorkerEvent) {
	if !b.nc.IsConnected() {
		return
	}
	data, err := json.Marshal(e)
	if err == nil {
		err = b.nc.Publish(schemas.WorkerEventSubject(e.Worker), data)
	}
	if err != nil {
		b.opts.Log.Warn().Err(err).Str("worker", e.Worker).Msg("cannot tell of this worker")
	}
}
