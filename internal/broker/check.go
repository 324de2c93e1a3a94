package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/schemas"
)

// Difference is a setting at the broker that is not what exhume would make it.
type Difference struct {
	// Of is the stream or consumer ("stream NAME"), Setting its setting as the server calls it;
	// empty when all of it is missing.
	Of      string `json:"of"`
	Setting string `json:"setting,omitempty"`
	Have    string `json:"have"`
	Want    string `json:"want"`
	// Harmful says that work would be lost or stop.
	Harmful bool `json:"harmful"`
	// Safe says that Setup corrects it: it loses nothing that is stored.
	Safe   bool   `json:"safe"`
	Remedy string `json:"remedy"`
}

func (d Difference) String() string {
	if d.Setting == "" {
		return fmt.Sprintf("%s is %s: %s", d.Of, d.Have, d.Remedy)
	}
	return fmt.Sprintf("%s: %s is %s, want %s: %s", d.Of, d.Setting, d.Have, d.Want, d.Remedy)
}

// rule compares one setting of a stream or consumer. T is its configuration.
type rule[T any] struct {
	setting string
	// harm and safe are those of Difference.
	harm, safe bool
	compare    func(have, want *T) (same bool, h, w string)
	set        func(have, want *T)
}

// equal is the rule that the field must be what it should.
func equal[T any, F comparable](setting string, harm, safe bool, field func(*T) *F) rule[T] {
	return accept(setting, harm, safe, field, func(have, want F) bool { return have == want })
}

// accept is the rule that the field must be good enough.
func accept[T, F any](setting string, harm, safe bool, field func(*T) *F, good func(have, want F) bool) rule[T] {
	return rule[T]{
		setting: setting, harm: harm, safe: safe,
		compare: func(have, want *T) (bool, string, string) {
			h, w := *field(have), *field(want)
			return good(h, w), fmt.Sprint(h), fmt.Sprint(w)
		},
		set: func(have, want *T) { *field(have) = *field(want) },
	}
}

type (
	streamConfig   = jetstream.StreamConfig
	consumerConfig = jetstream.ConsumerConfig
)

const harmful, harmless, safe, unsafe = true, false, true, false

var streamRules = []rule[streamConfig]{
	accept("subjects", harmful, safe, func(c *streamConfig) *[]string { return &c.Subjects },
		func(have, want []string) bool { return slices.Contains(have, want[0]) }),
	equal("retention", harmful, unsafe, func(c *streamConfig) *jetstream.RetentionPolicy { return &c.Retention }),
	equal("storage", harmful, unsafe, func(c *streamConfig) *jetstream.StorageType { return &c.Storage }),
	equal("discard", harmful, safe, func(c *streamConfig) *jetstream.DiscardPolicy { return &c.Discard }),
	// A bound is a setting of the collector. One below what is stored removes nothing.
	accept("max_bytes", harmless, safe, func(c *streamConfig) *int64 { return &c.MaxBytes },
		func(have, want int64) bool { return have == want || want < 0 }),
	accept("max_bytes", harmless, unsafe, func(c *streamConfig) *int64 { return &c.MaxBytes },
		func(have, want int64) bool { return have < 0 || want >= 0 }),
	equal("max_msgs", harmful, safe, func(c *streamConfig) *int64 { return &c.MaxMsgs }),
	// Raising it loses nothing, and a bucket needs just one.
	accept("max_msgs_per_subject", harmful, safe, func(c *streamConfig) *int64 { return &c.MaxMsgsPerSubject },
		func(have, want int64) bool { return have == want || want > 0 && have > 0 }),
	equal("max_msg_size", harmful, safe, func(c *streamConfig) *int32 { return &c.MaxMsgSize }),
	equal("max_consumers", harmful, unsafe, func(c *streamConfig) *int { return &c.MaxConsumers }),
	accept("max_age", harmful, safe, func(c *streamConfig) *time.Duration { return &c.MaxAge },
		func(have, want time.Duration) bool { return have == 0 || want != 0 }),
	accept("max_age", harmless, unsafe, func(c *streamConfig) *time.Duration { return &c.MaxAge },
		func(have, want time.Duration) bool { return have == 0 || want == 0 || have >= want }),
	accept("duplicate_window", harmless, safe, func(c *streamConfig) *time.Duration { return &c.Duplicates },
		func(have, want time.Duration) bool { return have >= want }),
	accept("num_replicas", harmless, unsafe, func(c *streamConfig) *int { return &c.Replicas },
		func(have, want int) bool { return have >= want }),
	accept("allow_atomic", harmful, safe, func(c *streamConfig) *bool { return &c.AllowAtomicPublish }, func(have, want bool) bool { return have || !want }),
	accept("allow_msg_ttl", harmful, safe, func(c *streamConfig) *bool { return &c.AllowMsgTTL }, func(have, want bool) bool { return have || !want }),
	accept("allow_rollup_hdrs", harmful, safe, func(c *streamConfig) *bool { return &c.AllowRollup }, func(have, want bool) bool { return have || !want }),
	equal("allow_direct", harmless, safe, func(c *streamConfig) *bool { return &c.AllowDirect }),
	equal("no_ack", harmful, safe, func(c *streamConfig) *bool { return &c.NoAck }),
	equal("sealed", harmful, unsafe, func(c *streamConfig) *bool { return &c.Sealed }),
	equal("deny_purge", harmful, unsafe, func(c *streamConfig) *bool { return &c.DenyPurge }),
}

var consumerRules = []rule[consumerConfig]{
	equal("ack_policy", harmful, unsafe, func(c *consumerConfig) *jetstream.AckPolicy { return &c.AckPolicy }),
	equal("deliver_policy", harmful, unsafe, func(c *consumerConfig) *jetstream.DeliverPolicy { return &c.DeliverPolicy }),
	equal("deliver_subject", harmful, unsafe, func(c *consumerConfig) *string { return &c.DeliverSubject }),
	equal("ack_wait", harmless, safe, func(c *consumerConfig) *time.Duration { return &c.AckWait }),
	equal("max_deliver", harmful, safe, func(c *consumerConfig) *int { return &c.MaxDeliver }),
	accept("backoff", harmful, safe, func(c *consumerConfig) *[]time.Duration { return &c.BackOff }, slices.Equal[[]time.Duration]),
	equal("filter_subject", harmful, safe, func(c *consumerConfig) *string { return &c.FilterSubject }),
	accept("filter_subjects", harmful, safe, func(c *consumerConfig) *[]string { return &c.FilterSubjects }, slices.Equal[[]string]),
	equal("headers_only", harmful, safe, func(c *consumerConfig) *bool { return &c.HeadersOnly }),
	equal("inactive_threshold", harmful, safe, func(c *consumerConfig) *time.Duration { return &c.InactiveThreshold }),
}

// differences compares all settings. Of names the stream or consumer as commands
// of the nats tool do.
func differences[T any](of string, have, want *T, rules []rule[T]) (all []Difference) {
	for _, r := range rules {
		same, h, w := r.compare(have, want)
		if same {
			continue
		}
		d := Difference{Of: of, Setting: r.setting, Have: h, Want: w, Harmful: r.harm, Safe: r.safe}
		switch {
		case r.safe:
			d.Remedy = "a collector corrects it when it starts"
		case r.harm:
			d.Remedy = fmt.Sprintf("when no batch is active, remove it with 'nats %s' and start a collector, which makes it anew", strings.Replace(of, " ", " rm ", 1))
		default:
			d.Remedy = fmt.Sprintf("if that is not meant, change it with 'nats %s'", strings.Replace(of, " ", " edit ", 1))
		}
		all = append(all, d)
	}
	return all
}

// correct makes of a configuration what Setup may make of it. It fails when
// something harmful stays.
func correct[T any](of string, have, want *T, rules []rule[T]) (changed bool, err error) {
	var errs []error
	for _, d := range differences(of, have, want, rules) {
		if d.Harmful && !d.Safe {
			errs = append(errs, errors.New(d.String()))
		}
	}
	for _, r := range rules {
		if same, _, _ := r.compare(have, want); r.safe && !same {
			r.set(have, want)
			changed = true
		}
	}
	return changed, errors.Join(errs...)
}

// Check compares the streams, the buckets and the collector's consumer with what
// Setup would make. It changes nothing.
func (b *Broker) Check(ctx context.Context) ([]Difference, error) {
	var all []Difference
	for _, want := range b.streams() {
		of := "stream " + want.Name
		s, err := b.js.Stream(ctx, want.Name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			all = append(all, missing(of))
		case err != nil:
			return all, fmt.Errorf("%s: %s: %w", b.opts, of, b.unavailable(err))
		default:
			all = append(all, differences(of, &s.CachedInfo().Config, &want, streamRules)...)
		}
	}
	want := collecting()
	of := collectingName
	c, err := b.js.Consumer(ctx, schemas.StreamResults, want.Durable)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
		all = append(all, missing(of))
	case err != nil:
		return all, fmt.Errorf("%s: %s: %w", b.opts, of, b.unavailable(err))
	default:
		all = append(all, differences(of, &c.CachedInfo().Config, &want, consumerRules)...)
	}
	return all, nil
}

func missing(of string) Difference {
	return Difference{Of: of, Have: "missing", Want: "there", Harmful: true, Safe: true, Remedy: "start 'exhume collector', which makes it"}
}
