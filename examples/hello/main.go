// Hello lists the active keys of an organisation.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/keywright/keywright"
)

func main() {
	rc, err := keywright.NewRicloud() // RICLOUD_TOKEN, or ~/.ricloud.ini
	if err != nil {
		log.Fatal(err)
	}
	for key, err := range rc.Key.All(context.Background(), keywright.KeyListParams{State: keywright.KeyActive}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(key.ID, key.Type, key.Token) // the token prints as [REDACTED]
	}
}
