package jobfile_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// stageExample returns a folder with a job file and a token, for a fake
// ricloud.
func stageExample() (dir string, done func()) {
	fake, err := keywrighttest.NewRicloud()
	if err != nil {
		log.Fatal(err)
	}
	fake.AddKeys(1)
	if dir, err = os.MkdirTemp("", "keywright-example-"); err != nil {
		log.Fatal(err)
	}
	for name, text := range map[string]string{"ricloud.token": fake.Token(), "keywright.yaml": `
version: 1
ricloud: {url: "` + fake.URL() + `", token_file: ricloud.token}
jobs:
  - name: billing
    strategy: ricloud-paired
    keys: [1, 2]
    sinks:
      - {type: file, path: ricloud.token, lag: 0s}
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			log.Fatal(err)
		}
	}
	return dir, func() {
		fake.Close()
		os.RemoveAll(dir)
	}
}

func ExampleLoad() {
	dir, done := stageExample()
	defer done()
	ctx := context.Background()

	f, err := jobfile.Load(filepath.Join(dir, "keywright.yaml"), jobfile.WithClientOptions(keywright.WithUserAgent("rotator/1.2")))
	if err != nil {
		log.Fatal(err) // all that is wrong with it, a line each
	}
	engine, err := f.Open()
	if err != nil {
		log.Fatal(err)
	}
	job, err := f.Job("billing")
	if err != nil {
		log.Fatal(err)
	}
	result, err := engine.Rotate(ctx, job)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Job, result.State)
	// Output:
	// billing DONE
}

func ExampleFile_All() {
	dir, done := stageExample()
	defer done()

	f, err := jobfile.Load(filepath.Join(dir, "keywright.yaml"))
	if err != nil {
		log.Fatal(err)
	}
	engine, err := f.Open()
	if err != nil {
		log.Fatal(err)
	}
	fleet := rotation.Fleet{Engine: engine}
	result, err := fleet.Run(context.Background(), func(yield func(rotation.Job) bool) { // it ranges twice
		for job, err := range f.All() {
			if err != nil {
				log.Print(err) // a job that cannot be made; the others follow
			} else if !yield(job) {
				return
			}
		}
	})
	fmt.Println(result.Done, err)
	// Output:
	// 1 <nil>
}

func ExampleFile_Schedule() {
	f, err := jobfile.Parse("keywright.yaml", []byte(`
version: 1
schedule: {every: 30d, timezone: Europe/Berlin, freeze: [{weekdays: [sat, sun]}]}
jobs:
  - name: billing
    strategy: ricloud-paired
    keys: [7, 8]
    schedule: {cron: 0 4 1 * *, canary: true}
    sinks:
      - {type: file, path: /etc/billing/ricloud.token}
  - name: shop
    strategy: ricloud-paired
    keys: [9, 10]
    schedule: never
    sinks:
      - {type: file, path: /etc/shop/ricloud.token}
`))
	if err != nil {
		log.Fatal(err)
	}
	for _, job := range f.Jobs {
		fmt.Printf("%s: %s\n", job.Name, f.Schedule(job.Name))
	}
	// Output:
	// billing: {"cron":"0 4 1 * *","timezone":"Europe/Berlin","freeze":[{"weekdays":["sat","sun"]}],"canary":true}
	// shop:
}

func ExampleParse() {
	_, err := jobfile.Parse("keywright.yaml", []byte(`
version: 1
jobs:
  - name: billing
    strategy: ricloud-pair
    sinks:
      - {type: file, pth: /run/secrets/ricloud}
`))
	fmt.Println(err)
	// Output:
	// keywright.yaml:5: jobs[0].strategy: is "ricloud-pair"; want ricloud-paired, ricloud-overlap, acedata-swap or acedata-in-place; did you mean "ricloud-paired"?
	// keywright.yaml:7: jobs[0].sinks[0].path: is missing; is it what you called "pth"?
	// keywright.yaml:7: jobs[0].sinks[0].pth: unknown field; did you mean "path"?
}
