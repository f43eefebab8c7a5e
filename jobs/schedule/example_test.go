package schedule_test

import (
	"fmt"
	"time"

	"github.com/keywright/keywright/jobs/schedule"
)

func ExampleSpec_Next() {
	spec, err := schedule.Parse([]byte(`{
		"every": "30d",
		"timezone": "Europe/Berlin",
		"freeze": [{"from": "12-20", "to": "01-05"}]
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	last := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	due, err := spec.Next(schedule.Input{Job: "billing", Last: last, Now: last})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(due.At.Format(time.RFC3339))
	fmt.Println(due.Reason)
	// Output:
	// 2026-12-19T22:00:00Z
	// every 30d, moved before the freeze of 12-20 to 01-05
}

func ExampleOrder() {
	now := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	for _, turn := range schedule.Order(now, []schedule.Member{
		{Name: "checkout", Group: "payments", Due: now},
		{Name: "staging", Group: "payments", Due: now, Canary: true},
	}) {
		fmt.Printf("%s %t %q\n", turn.Name, turn.Begin, turn.Reason)
	}
	// Output:
	// staging true ""
	// checkout false "waits for the canary staging"
}
