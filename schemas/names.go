package schemas

import (
	"fmt"
	"regexp"
	"strings"
)

// Names of the JetStream streams and key-value buckets.
const (
	// StreamRestore holds restore requests, subjects exhume.restore.<batch>.new,
	// .canary and .retry, and exhume.restore.single.
	StreamRestore = "EXHUME_RESTORE"
	// StreamResults holds results, subjects exhume.result.<worker>.<batch>.
	StreamResults = "EXHUME_RESULTS"
	// BucketBatches holds the active batches that workers watch, one Batch a key.
	BucketBatches = "EXHUME_BATCHES"
	// BucketRetries holds the failed attempts of items that will be tried
	// again, one Retry a key <batch>.<index>.
	BucketRetries = "EXHUME_RETRIES"
	// BucketFleet holds what all workers go by: the Steering under KeySteering, and
	// under rate.<scope>.items and rate.<scope>.bytes how far a limit is used up, as
	// text: nanoseconds since 1970, a space, units a second.
	BucketFleet = "EXHUME_FLEET"
	KeySteering = "steering"
)

// Subject patterns of the streams.
const (
	SubjectsRestore = "exhume.restore.>"
	SubjectsResults = "exhume.result.>"
	SubjectsEvents  = "exhume.event.>"
)

// restorePrefix is what the subjects of requests begin with.
const restorePrefix = "exhume.restore."

// RestoreSubject is the subject of one batch's requests, as its producer
// publishes them.
func RestoreSubject(batch string) string {
	if batch == Single {
		return restorePrefix + batch
	}
	return restorePrefix + batch + ".new"
}

// RetrySubject is the subject of those requests of a batch that workers publish
// again because an attempt failed. It is another than the producer's, whose last
// message tells where the producer has stopped.
func RetrySubject(batch string) string { return restorePrefix + batch + ".retry" }

// CanarySubject is the subject of the requests of a batch's sample.
func CanarySubject(batch string) string { return restorePrefix + batch + ".canary" }

// RestoreSubjects stands for all subjects of a batch's requests.
func RestoreSubjects(batch string) string {
	if batch == Single {
		return RestoreSubject(batch)
	}
	return restorePrefix + batch + ".*"
}

// BatchOfSubject is the batch that a subject of requests belongs to.
func BatchOfSubject(subject string) string {
	batch, _, _ := strings.Cut(strings.TrimPrefix(subject, restorePrefix), ".")
	return batch
}

// ResultSubject is the subject of one worker's results for one batch. The
// worker's name comes first so that a server can enforce who said it.
func ResultSubject(worker, batch string) string { return "exhume.result." + worker + "." + batch }

// BatchEventSubject is the subject on which is announced how a batch stands,
// while it goes on and when it ends.
func BatchEventSubject(batch string) string { return "exhume.event.batch." + batch }

// WorkerEventSubject is the subject on which a worker tells of its breakers.
func WorkerEventSubject(worker string) string { return "exhume.event.worker." + worker }

// SubjectWorkerStatus is the subject on which each worker answers a
// WorkerQuestion with its WorkerStatus.
const SubjectWorkerStatus = "exhume.worker.status"

// SubjectWorkerAnswers begins the subjects on which workers answer: they may
// publish there, and need not be let publish wherever a message came from.
const SubjectWorkerAnswers = "exhume.worker.answer."

var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// CheckName says whether s can name a batch or a worker. Both become a token of
// a NATS subject and a key of a bucket, so the alphabet is theirs: a letter or
// digit first, then letters, digits, '-' and '_', 64 characters at most. "latest"
// and Single have meanings of their own.
func CheckName(s string) error {
	if s == "latest" || s == Single {
		return fmt.Errorf("name %q is reserved", s)
	}
	if !name.MatchString(s) {
		return fmt.Errorf("name %q: want 1 to 64 letters, digits, '-' or '_', a letter or digit first", s)
	}
	return nil
}
