package client_test

import (
	"context"
	"fmt"

	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/producer/client"
	"github.com/exhume/exhume/schemas"
)

// One item is restored on request, and its result awaited.
func ExampleClient_Restore() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Options{URL: "nats://127.0.0.1:4222", Name: "helpdesk"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close() //nolint:errcheck // nothing is left to send
	pending, err := c.Restore(ctx, "ticket-4711", schemas.SingleRequest{
		Tombstone: "9039c97b-1acb-4124-a066-1c30c7ed65f4", Output: "tickets/4711/main.go", Actor: "helpdesk",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	result, err := pending.Wait(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Outcome, result.Target)
}

// A batch is submitted from an iterator, without a manifest. Its name makes it
// safe to submit it again: only what is missing is done.
func ExampleClient_Submit() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Options{Context: "production", Name: "rollback"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close() //nolint:errcheck // nothing is left to send
	tombstones := []string{"9039c97b-1acb-4124-a066-1c30c7ed65f4", "bb66bc1d-865d-40dd-8f19-5757a809bd46"}
	_, err = c.Submit(ctx, producer.Submission{
		Batch: schemas.Batch{ID: "rollback-17", Actor: "release", Settings: schemas.Settings{Root: "/srv/restored"}},
		Total: int64(len(tombstones)),
		Items: func(yield func(schemas.Request, error) bool) {
			for i, tombstone := range tombstones {
				r := schemas.Request{Index: int64(i), Tombstone: tombstone, Output: fmt.Sprintf("item-%d", i), Actor: "release"}
				if !yield(r, nil) {
					return
				}
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
}
