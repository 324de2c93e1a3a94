package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/schemas"
)

// quiet is how long no answer comes before the workers are taken to have all
// answered.
const quiet = 100 * time.Millisecond

// AnswerStatus answers everybody who asks the workers how they stand, until stop
// is called. What is in hand is cut where the broker would not take the answer.
// The error of a user who may not listen carries CodeBrokerDenied.
func (b *Broker) AnswerStatus(answer func(schemas.WorkerQuestion) schemas.WorkerStatus) (stop func(), err error) {
	sub, err := b.subscribe(schemas.SubjectWorkerStatus, func(m *nats.Msg) {
		var q schemas.WorkerQuestion
		err := json.Unmarshal(m.Data, &q)
		if err == nil {
			var data []byte
			if data, err = encode(answer(q), int(b.nc.MaxPayload())); err == nil {
				err = m.Respond(data)
			}
		}
		if err != nil {
			b.opts.Log.Warn().Err(err).Msg("cannot answer how this worker stands")
		}
	})
	if err != nil {
		return nil, fmt.Errorf("answer questions to workers: %w", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}

// Workers asks all workers how they stand, and gives the answers in the order of
// their names. It waits so long at most, and as soon as answers have ceased to come
// a quarter of that; where there are no workers it does not wait. Who has not
// answered by then is left out.
func (b *Broker) Workers(ctx context.Context, q schemas.WorkerQuestion, wait time.Duration) ([]schemas.WorkerStatus, error) {
	data, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("ask the workers: %w", err)
	}
	// No inbox: workers may publish there and nowhere else.
	inbox := schemas.SubjectWorkerAnswers + rand.Text()
	var all []schemas.WorkerStatus
	err = b.permitted(ctx, func(ctx context.Context) (err error) {
		all, err = b.askWorkers(ctx, data, inbox, wait)
		return err
	}, toSubscribe(inbox), toPublish(schemas.SubjectWorkerStatus))
	if err != nil {
		return nil, fmt.Errorf("ask the workers: %w", err)
	}
	slices.SortStableFunc(all, func(a, b schemas.WorkerStatus) int { return cmp.Compare(a.Worker, b.Worker) })
	return all, nil
}

func (b *Broker) askWorkers(ctx context.Context, question []byte, inbox string, wait time.Duration) (all []schemas.WorkerStatus, err error) {
	sub, err := b.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe() //nolint:errcheck // fails only on a connection that is closed
	start := time.Now()
	if err := b.nc.PublishRequest(schemas.SubjectWorkerStatus, inbox, question); err != nil {
		return nil, err
	}
	for until := start.Add(wait); ; {
		bounded, cancel := context.WithDeadline(ctx, until)
		msg, err := sub.NextMsgWithContext(bounded)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders): // there are no workers
			return all, nil
		case err != nil:
			return nil, err
		}
		var s schemas.WorkerStatus
		if err := json.Unmarshal(msg.Data, &s); err != nil {
			b.opts.Log.Warn().Err(err).Msg("a worker's answer cannot be understood; passed over")
			continue
		}
		all = append(all, s)
		until = start.Add(min(wait, max(wait/4, time.Since(start)+quiet)))
	}
}
