package worker

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/exhume/exhume/internal/failpoint"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// SickError says that this worker cannot write to a destination. The items that it
// had in hand for it went back to the queue and cost no attempt.
type SickError struct {
	Code   schemas.Code
	Detail string
}

func (e *SickError) Error() string { return e.Detail }

// maxDetail bounds a result's detail, in bytes.
const maxDetail = 2048

// maxPastDetail bounds the detail of a failed attempt that is remembered.
const maxPastDetail = 512

// work does what is to be done with one group and settles it within work, and
// gives the group's slot free in between. It waits for what is away until stop
// ends.
func (w *Worker) work(work, stop context.Context, h *hand, b *schemas.Batch) {
	defer w.hands.close(h)
	start := time.Now()
	d := decode(b.ID, h.msgs, w.cfg.Cancels)
	defer w.keepAlive(d.msgs)()
	for _, m := range d.early {
		_ = m.Nak(min(max(time.Until(m.retryAt), 0), w.cfg.Retry.MaxDelay))
	}
	for _, m := range d.foreign {
		// It stays in the stream until the batch ends, and counts for no item.
		w.log.Error().Str("batch", b.ID).Str("payload", quote(m.Data())).Msg("message is no request and names no item; passed over")
		_ = m.Ack()
	}
	n := len(d.good) + len(d.bad)
	w.cfg.Observer.InHand(n)
	defer w.cfg.Observer.InHand(-n)
	p, err := w.plan(h, b, &d)
	var results []schemas.Result
	if err == nil {
		results, err = w.try(h, b.Settings, p)
	}
	settling := w.settles.acquire(context.WithoutCancel(work), w.settling, n)
	h.slot.release()
	defer settling.release()
	if err != nil {
		w.handBack(d.msgs)
		return
	}
	items := slices.Concat(p.together, p.alone, p.untried)
	results = append(results, p.ends...)
	for i := range results {
		r := &results[i]
		r.Worker, r.Detail = w.cfg.Name, oneLine(r.Detail)
		r.Durations.Queue = max(0, milliseconds(start.Sub(r.Published)))
		r.Durations.Total = milliseconds(time.Since(start))
	}
	if err := w.settle(work, stop, b.ID, d.msgs, p.later, items, results); err != nil {
		w.log.Warn().Err(err).Str("batch", b.ID).Int("items", len(items)).Msg("cannot settle; the items will come again")
	}
}

// try restores the items of a plan that are to be tried.
func (w *Worker) try(h *hand, s schemas.Settings, p *plan) ([]schemas.Result, error) {
	n := len(p.together) + len(p.alone)
	if err := w.pay(h.work, h.stop, h.slot, n); err != nil {
		return nil, err
	}
	results, err := w.guard.restore(h, together{w}, s, requestsOf(p.together))
	if err != nil {
		return nil, err
	}
	if len(p.alone) > 0 {
		more, err := w.guard.restore(h, newAlone(h.stop, w, p.alone), s, requestsOf(p.alone))
		if err != nil {
			return nil, err
		}
		results = append(results, more...)
	}
	h.slot.used(n, restoredBytes(results))
	return results, nil
}

func requestsOf(items []held) []schemas.Request {
	requests := make([]schemas.Request, len(items))
	for i := range items {
		requests[i] = items[i].request
	}
	return requests
}

func restoredBytes(results []schemas.Result) (n int64) {
	for i := range results {
		if results[i].Outcome == schemas.OutcomeRestored {
			n += results[i].Size
		}
	}
	return n
}

// settle is the one place where items leave the worker's hand. The order is what
// makes them safe: what became of them is told first, failed attempts are counted
// then, and requests go back or are acknowledged last. Messages that are to come
// later are given back with their delays.
//
// Who dies between the steps leaves messages that come again, and with them all
// their items, whose results and failures are known already and count once. Before
// the attempts are counted, an item that failed is tried once more than it may be,
// under the number that its failure has. After that it does not wait before its next
// attempt; once its own request is published, it is tried by that one, too, and each
// attempt that fails counts.
func (w *Worker) settle(
	ctx, stop context.Context, batch string, msgs []Message, later map[Message]time.Duration, items []held, results []schemas.Result,
) error {
	d, err := w.decide(ctx, stop, items, results)
	if err != nil {
		return err
	}
	if d.sick != nil && w.cfg.EndWhenSick {
		w.stop(d.sick)
	}
	failpoint.Here("worker.restored")
	if group := d.told(batch, w.cfg.Name); len(group.Results)+len(group.Failures) > 0 {
		start := time.Now()
		if err := w.insist(ctx, stop, "store results", func() error { return w.queue.PublishResults(ctx, group) }); err != nil {
			return err
		}
		w.cfg.Observer.Settled(d.final, time.Since(start))
	}
	failpoint.Here("worker.published")
	if err := w.tryAgain(ctx, stop, d, later); err != nil {
		return err
	}
	failpoint.Here("worker.requeued")
	for _, m := range msgs {
		delay, again := later[m]
		switch {
		case d.back[m]:
			_ = m.Nak(0)
		case again:
			_ = m.Nak(delay)
		default:
			_ = m.Ack() // a lost one only repeats harmless work
		}
	}
	return nil
}

// tryAgain counts failed attempts and has their items tried again. An item that
// shares its message with others goes back to the queue in a message of its own;
// the messages of the others are added to later.
func (w *Worker) tryAgain(ctx, stop context.Context, d decisions, later map[Message]time.Duration) error {
	var requeue []schemas.RequestGroup
	whole := map[Message]time.Duration{}
	for _, a := range d.again {
		r := &a.item.request
		err := w.insist(ctx, stop, "count a failed attempt", func() error { return w.retries.SetRetry(ctx, r.Batch, r.Index, a.retry) })
		if err != nil {
			return err
		}
		w.cfg.Observer.Retried(a.failed.Code)
		w.log.Info().Str("request", r.ID()).Int("attempt", a.retry.Attempts).Dur("delay", a.delay).
			Str("cause", a.failed.Detail).Msg("will be tried again")
		switch m := a.item.of; {
		case d.back[m]: // it comes again as a whole
		case m.items == 1:
			later[m] = a.delay
		default:
			g := schemas.NewRequestGroup([]schemas.Request{*r})
			g.Published, g.NotBefore = r.Published.UTC(), a.retry.NextTry
			requeue = append(requeue, g)
			whole[m] = max(whole[m], a.delay)
		}
	}
	failpoint.Here("worker.counted")
	if len(requeue) == 0 {
		return nil
	}
	return w.insist(ctx, stop, "publish requests again", func() error {
		err := w.queue.Requeue(ctx, requeue)
		if !fault.Is(err, schemas.CodeBrokerFull) {
			return err
		}
		// There may be no room until those who hold messages let go of them.
		w.log.Warn().Err(err).Int("messages", len(whole)).Msg("no room for requests to be tried again; giving their messages back as they are")
		maps.Copy(later, whole)
		return nil
	})
}

// decisions are what becomes of a group.
type decisions struct {
	final []schemas.Result
	again []again
	// back are the messages that are given back whole, because this worker is
	// sick. Those of their items that are finished are only repeated.
	back map[Message]bool
	sick *SickError
}

// again is an item that will be tried again.
type again struct {
	item   held
	failed schemas.Attempt
	retry  schemas.Retry
	delay  time.Duration
}

// told is what is published of a group: its results, and the attempts that failed
// and will be followed by another.
func (d *decisions) told(batch, worker string) schemas.ResultGroup {
	g := schemas.ResultGroup{Batch: batch, Worker: worker, Results: d.final}
	for i := range d.again {
		a, r := &d.again[i], &d.again[i].item.request
		g.Failures = append(g.Failures, schemas.Failure{
			Batch: r.Batch, Index: r.Index, Tombstone: r.Tombstone, Output: r.Output, Actor: r.Actor,
			Number: a.retry.Attempts, Attempt: a.failed, NextTry: a.retry.NextTry,
		})
	}
	return g
}

func (w *Worker) decide(ctx, stop context.Context, items []held, results []schemas.Result) (d decisions, err error) {
	now := time.Now().UTC()
	d.final, d.back = []schemas.Result{}, map[Message]bool{}
	for i := range results {
		r, item := results[i], items[i]
		if item.past == nil && r.Code.Class() == schemas.ClassTransient {
			if err := w.lookUp(ctx, stop, &item); err != nil { // since it matters now
				return d, err
			}
		}
		var past schemas.Retry
		if item.past != nil {
			past = cleared(*item.past)
		}
		r.Attempts, r.History, r.FinishedAt = past.Attempts, past.History, now
		if tried(r.Code) {
			r.Attempts++
		}
		switch v := Decide(w.cfg.Retry, r.Code, r.Attempts); v.Action {
		case Finish:
			d.final = append(d.final, r)
		case TryAgain:
			failed := schemas.Attempt{At: now, Worker: w.cfg.Name, Code: r.Code, Detail: cut(r.Detail, maxPastDetail)}
			past.Attempts++
			past.Causes = append(past.Causes, r.Code)
			past.LastError, past.NextTry = r.Detail, now.Add(v.Delay)
			past.History = append(past.History, failed)
			past.History = past.History[max(0, len(past.History)-schemas.MaxHistory):]
			d.again = append(d.again, again{item, failed, past, v.Delay})
		case HandBack:
			d.sick = &SickError{r.Code, r.Detail}
			d.back[item.of] = true
		}
	}
	return d, nil
}

// tried says whether an item that ended with the code was tried at last.
func tried(code schemas.Code) bool {
	return code != schemas.CodeItemCancelled && code != schemas.CodeItemSkipped && code != schemas.CodeWorkerKiller
}

// lookUp looks up an item's failed attempts.
func (w *Worker) lookUp(ctx, stop context.Context, item *held) error {
	return w.insist(ctx, stop, "look up failed attempts", func() error {
		past, err := w.retries.Retry(ctx, item.request.Batch, item.request.Index)
		if err == nil {
			item.past = &past
		}
		return err
	})
}

// insist repeats what the broker must do until it is done: the requests behind
// it are in hand and stay so. Once stop has ended it is not repeated any more.
func (w *Worker) insist(ctx, stop context.Context, what string, do func() error) error {
	for {
		err := do()
		if err == nil || ctx.Err() != nil || stop.Err() != nil {
			return err
		}
		w.log.Warn().Err(err).Msg("cannot " + what + "; trying again")
		pause(stop, time.Second)
	}
}

// handBack gives messages back as if they had not been taken.
func (w *Worker) handBack(msgs []Message) {
	for _, m := range msgs {
		_ = m.Nak(0) // a lost one comes again when its lease ends
	}
}

// keepAlive renews the leases of messages until it is stopped.
func (w *Worker) keepAlive(msgs []Message) (stop func()) {
	done := make(chan struct{})
	go func() {
		t := time.NewTicker(w.cfg.Heartbeat)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				for _, m := range msgs {
					_ = m.Alive() // an expired lease only repeats harmless work
				}
			}
		}
	}()
	return func() { close(done) }
}

// oneLine makes any text a detail.
func oneLine(s string) string {
	s = cut(s, maxDetail)
	if strings.ContainsAny(s, "\r\n") {
		s = strings.Join(strings.Fields(s), " ")
	}
	return s
}

// cut bounds a text, in bytes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
