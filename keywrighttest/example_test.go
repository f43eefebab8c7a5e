package keywrighttest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// exampleT stands for the *testing.T of a test.
type exampleT struct{ cleanup []func() }

func (*exampleT) Helper()               {}
func (t *exampleT) Cleanup(f func())    { t.cleanup = append(t.cleanup, f) }
func (*exampleT) Fatalf(string, ...any) { panic("failed") }

func ExampleStartRicloud() {
	t := &exampleT{} // in a test: t *testing.T

	fake := keywrighttest.StartRicloud(t)
	rc, err := keywright.NewRicloud(keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()))
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer rc.CloseIdleConnections()
	// The answer to the next rotation is lost, after it took effect.
	fake.Inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
	_, err = rc.Key.RotateWithID(context.Background(), 1, keywright.KeyRotateParams{})
	fmt.Println(keywright.OutcomeOf(err), fake.Count("key.rotate"), fake.Applied("key.rotate"))
	// Both tokens work for six hours; then only the new one does.
	fmt.Println(len(fake.AcceptedTokens(1)))
	fake.Clock().Advance(7 * time.Hour)
	fmt.Println(len(fake.AcceptedTokens(1)))

	for _, f := range t.cleanup {
		f()
	}
	// Output:
	// ambiguous 1 1
	// 2
	// 1
}
