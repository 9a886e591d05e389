# SPDX-License-Identifier: MIT
"""The template service from end to end, with the servers that it is run with: Redis and MariaDB.

Nothing here goes by time: queries are held by a lock on their table, and what comes after is awaited.
"""

import http.client
import signal
import threading
import unittest

from processes import Service
from servers import PROGRAM, TEMPLATES, Client, Crowd, EndToEnd, WithServers, await_that

WAITING = 'singleflight_requests_waiting{group="templates"}'
IN_FLIGHT = 'singleflight_calls_in_flight{group="templates"}'
LED = 'singleflight_requests_total{group="templates",role="led"}'
JOINED = 'singleflight_requests_total{group="templates",role="joined"}'

# For tests that hold a query until they release it.
PATIENT = ("--deadline-ms=60000", "--max-age-ms=60000", "--store-timeout-s=60",
           "--store-patience-ms=60000")


class Requests(EndToEnd):
    """With no flags but a port, the service runs alone."""

    def setUp(self):
        super().setUp()
        self.client = Client(Service(self.fleet, "service", PROGRAM))

    def test_a_template_is_answered_as_json(self):
        answer = self.client.details(7)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        self.assertEqual((answer.json["id"], answer.json["locale"]), (7, "en"))
        self.assertEqual(len(answer.json["text"].splitlines()), answer.json["fragments"])

    def test_languages_are_not_mixed_up(self):
        english, german = self.client.details(7, "en").json, self.client.details(7, "de").json
        self.assertIn("Baustein", german["text"])
        self.assertNotIn("Baustein", english["text"])
        self.assertEqual(self.client.get("/template-details?id=7").json, english)

    def test_an_unknown_template_is_not_found(self):
        answer = self.client.details(4_000_000_000)
        self.assertEqual(answer.status, 404)
        self.assertEqual(answer.json, {"error": "no template 4000000000"})

    def test_a_bad_request_is_told_what_is_wrong(self):
        bad_id = "id must be a whole number from 1 to 4294967295"
        for query in ("", "?id=", "?id=abc", "?id=-1", "?id=0", "?id=1.5", "?id=4294967296",
                      "?id=1x", "?id=%00", "?id=1&locale=fr"):
            with self.subTest(query=query):
                answer = self.client.get("/template-details" + query)
                self.assertEqual(answer.status, 400)
                wanted = "locale must be en or de" if "locale" in query else bad_id
                self.assertEqual(answer.json, {"error": wanted})

    def test_what_no_handler_sees_is_refused_with_a_reason_of_its_own_and_counted(self):
        for status, reason, path, method in (
                (404, "there is nothing here", "/template-detail", "GET"),
                (414, "the address is too long", "/template-details?id=" + 9_000 * "7", "GET"),
                (400, "this is no valid HTTP request, or none that the service answers", "/template-details?id=1",
                 "BREW")):
            with self.subTest(status=status):
                answer = self.client.get(path, method)
                self.assertEqual((answer.status, answer.json), (status, {"error": reason}))
                self.assertEqual(self.client.metrics()[f'template_http_requests_total{{code="{status}"}}'], 1)

    def test_it_says_that_it_is_well(self):
        answer = self.client.get("/healthz")
        self.assertEqual((answer.status, answer.json), (200, {"status": "ok"}))

    def test_each_metric_has_a_help_text_and_a_type(self):
        self.client.details(1)
        metrics = self.client.metrics()
        for sample in metrics:
            family = sample.split("{")[0]
            for suffix in ("_bucket", "_sum", "_count"):
                if f"# TYPE {family.removesuffix(suffix)} histogram" in metrics.text:
                    family = family.removesuffix(suffix)
            self.assertIn(f"# HELP {family} ", metrics.text)
            self.assertIn(f"# TYPE {family} ", metrics.text)

    def test_a_bad_flag_is_refused_in_one_sentence(self):
        refused = self.fleet.start("refused", [PROGRAM, "--coalesce=maybe"])
        self.assertNotEqual(refused.wait(), 0)
        self.assertIn("--coalesce", self.fleet.log("refused"))


class ReadThrough(WithServers):
    def test_the_first_request_queries_and_the_next_hits(self):
        client = self.start_service()
        first, next_one = client.details(7), client.details(7)
        self.assertEqual(first.body, next_one.body)
        metrics = client.metrics()
        self.assertEqual(metrics["template_store_queries_total"], 1)
        self.assertEqual(metrics["template_cache_hits_total"], 1)

    def test_a_page_of_templates_is_one_query(self):
        client = self.start_service()
        client.details(2)
        page = client.get("/template-details?id=1,2,3,9999,1")
        self.assertEqual(page.status, 200)
        self.assertEqual([one and one["id"] for one in page.json], [1, 2, 3, None, 1])
        self.assertEqual(page.json[1], client.details(2).json)
        self.assertEqual(client.metrics()["template_store_queries_total"], 2)
        self.assertEqual(client.metrics()['singleflight_batches_total{group="templates"}'], 1)
        self.assertEqual(client.get("/template-details?id=3,1,9999").json[2], None)
        self.assertEqual(client.details(9_999).status, 404)
        self.assertEqual(client.details(3).json, page.json[2])
        self.assertEqual(client.metrics()["template_store_queries_total"], 2, "all of them are in the cache")

    def test_pages_that_overlap_share_their_queries(self):
        client = self.start_service(*PATIENT)
        with self.queries_held():
            answers = []
            threads = [threading.Thread(target=lambda q=query: answers.append(client.get("/template-details?id=" + q)))
                       for query in ("1,2,3", "2,3,4", "3")]
            for thread in threads:
                thread.start()
            await_that(lambda: client.metrics().sum("singleflight_requests_total") == 7, "all of them have entered")
        for thread in threads:
            thread.join()
        self.assertEqual({answer.status for answer in answers}, {200})
        metrics = client.metrics()
        self.assertEqual(metrics[LED], 4)
        self.assertEqual(metrics[JOINED], 3)

    def test_a_list_with_a_bad_number_is_refused(self):
        client = self.start_service()
        for ids in ("1,", ",1", "1,x", "1,,2", ",".join(["1"] * 201)):
            with self.subTest(ids=ids):
                self.assertEqual(client.get("/template-details?id=" + ids).status, 400)

    def test_an_entry_lives_for_thirty_seconds_give_or_take_a_tenth(self):
        client = self.start_service()
        most = []
        for template in range(1, TEMPLATES + 1):
            client.details(template)
            most.append(int(self.ask_redis("PTTL", f"template-details:{template}:en")[1:]))
        self.assertTrue(all(0 < ms <= 33_000 for ms in most), most)
        self.assertGreater(len(set(ms // 1000 for ms in most)), 1, "all expire together")

    def test_an_update_is_seen_when_the_entry_has_expired_and_not_before(self):
        client = self.start_service()
        self.assertEqual(client.details(7).json["version"], 1)
        self.mariadb.execute("UPDATE templates.template SET version = 2 WHERE id = 7")
        self.assertEqual(client.details(7).json["version"], 1)
        self.ask_redis("PEXPIRE", "template-details:7:en", "1")
        await_that(lambda: client.details(7).json["version"] == 2, "the update")

    def test_an_entry_expires_by_itself(self):
        client = self.start_service("--lifetime-ms=50")
        client.details(7)
        self.mariadb.execute("UPDATE templates.template SET version = 2 WHERE id = 7")
        await_that(lambda: client.details(7).json["version"] == 2, "the update")

    def test_processes_share_the_cache(self):
        one, other = self.start_service(), self.start_service(name="service-2")
        self.assertEqual(one.details(7).body, other.details(7).body)
        self.assertEqual(other.metrics()["template_store_queries_total"], 0)
        self.assertNotEqual(other.details(7, "de").body, one.details(7, "en").body)


class Coalescing(WithServers):
    CROWD = 20

    def test_requests_that_miss_together_share_one_query(self):
        client = self.start_service(*PATIENT)
        with self.queries_held():
            crowd = Crowd(self.CROWD, lambda: client.details(7))
            await_that(lambda: client.metrics()[WAITING] == self.CROWD - 1,
                       "the crowd to wait for one query")
        self.assertEqual({answer.status for answer in crowd.answers()}, {200})
        self.assertEqual(len({answer.body for answer in crowd.answers()}), 1)
        metrics = client.metrics()
        self.assertEqual(metrics["template_store_queries_total"], 1)
        self.assertEqual(metrics[LED], 1)
        self.assertEqual(metrics[JOINED], self.CROWD - 1)

    def test_without_it_each_of_them_queries(self):
        client = self.start_service(*PATIENT, "--store-connections=4", coalesce="off")
        with self.queries_held():
            crowd = Crowd(self.CROWD, lambda: client.details(7))
            await_that(lambda: client.metrics()["template_store_connections_waited_for"]
                       == self.CROWD - 4, "the crowd to wait for connections")
        self.assertEqual({answer.status for answer in crowd.answers()}, {200})
        self.assertEqual(client.metrics()["template_store_queries_total"], self.CROWD)

    def test_different_templates_and_languages_do_not_wait_for_each_other(self):
        client = self.start_service(*PATIENT)
        with self.queries_held():
            crowds = [Crowd(1, lambda: client.details(7, "en")),
                      Crowd(1, lambda: client.details(7, "de")),
                      Crowd(1, lambda: client.details(8, "en"))]
            await_that(lambda: client.metrics()[IN_FLIGHT] == 3, "three queries")
        bodies = {answer.body for crowd in crowds for answer in crowd.answers()}
        self.assertEqual(len(bodies), 3)

    def test_who_waits_too_long_is_sent_away_for_a_while(self):
        client = self.start_service("--deadline-ms=50", "--max-age-ms=60000",
                                    "--store-timeout-s=60")
        with self.queries_held():
            leader = Crowd(1, lambda: client.details(7))
            await_that(lambda: client.metrics()[IN_FLIGHT] == 1, "the query")
            follower = client.details(7)
        self.assertEqual(follower.status, 503)
        self.assertEqual(follower.headers["Retry-After"], "1")
        self.assertEqual(follower.json, {"error": "the store takes too long"})
        self.assertEqual(leader.answers()[0].status, 200)


class OneFleet(WithServers):
    """Several processes with one Redis: one of them queries, the others get what it has."""

    PROCESSES = 3
    LONG = (*PATIENT, "--lease-ms=60000", "--max-wait-ms=60000")

    def start_fleet(self, *flags):
        return [self.start_service(*flags, name=f"service-{number}")
                for number in range(self.PROCESSES)]

    @staticmethod
    def sum(processes, sample):
        return sum(process.metrics()[sample] for process in processes)

    def ask_all(self, processes, template, each=2):
        """A crowd that asks all processes, and what tells whether all of it waits for one query."""
        crowds = [Crowd(each, lambda process=process: process.details(template))
                  for process in processes]
        return lambda: [answer for crowd in crowds for answer in crowd.answers()]

    def await_waiting(self, processes, count):
        await_that(lambda: self.sum(processes, 'singleflight_fleet_waiting{group="templates"}') == count,
                   f"{count} processes to wait for another")

    def test_a_cold_key_costs_one_query(self):
        processes = self.start_fleet(*self.LONG)
        with self.queries_held():
            answers = self.ask_all(processes, 7)
            self.await_waiting(processes, self.PROCESSES - 1)
            await_that(lambda: self.sum(processes, WAITING) == self.PROCESSES,
                       "the others in each process")
        self.assertEqual({answer.status for answer in answers()}, {200})
        self.assertEqual(len({answer.body for answer in answers()}), 1)
        self.assertEqual(self.sum(processes, "template_store_queries_total"), 1)
        self.assertEqual(self.sum(processes, 'singleflight_fleet_led_total{group="templates"}'), 1)
        self.assertEqual(self.sum(processes, 'singleflight_fleet_followed_total{group="templates"}'),
                         self.PROCESSES - 1)
        self.assertEqual(processes[0].details(7).status, 200)
        self.assertEqual(self.sum(processes, "template_store_queries_total"), 1)

    def test_without_it_each_process_queries(self):
        processes = self.start_fleet(*self.LONG, "--fleet=off")
        with self.queries_held():
            answers = self.ask_all(processes, 7)
            await_that(lambda: self.sum(processes, WAITING) == self.PROCESSES,
                       "a query in each process")
        self.assertEqual({answer.status for answer in answers()}, {200})
        self.assertEqual(self.sum(processes, "template_store_queries_total"), self.PROCESSES)
        self.assertNotIn('singleflight_fleet_led_total{group="templates"}', processes[0].metrics())

    def test_that_there_is_no_template_is_told_to_all_and_kept_for_a_while(self):
        processes = self.start_fleet(*self.LONG)
        with self.queries_held():
            answers = self.ask_all(processes, 9_999, each=1)
            self.await_waiting(processes, self.PROCESSES - 1)
        self.assertEqual({answer.status for answer in answers()}, {404})
        self.assertEqual(self.sum(processes, "template_store_queries_total"), 1)
        left = int(self.ask_redis("PTTL", "template-details:9999:en")[1:])
        self.assertTrue(0 < left <= 5_500, left)
        self.assertEqual(processes[0].details(9_999).status, 404)
        self.assertEqual(self.sum(processes, "template_store_queries_total"), 1)

    def test_one_process_takes_over_from_one_that_was_killed(self):
        processes = self.start_fleet(*PATIENT, "--lease-ms=300", "--max-wait-ms=60000")
        with self.queries_held():
            first = Crowd(1, lambda: processes[0].details(7))
            await_that(lambda: processes[0].metrics()['singleflight_fleet_led_total{group="templates"}'] == 1,
                       "the first to lead")
            processes[0].service.process.kill()
            answers = self.ask_all(processes[1:], 7, each=1)
            await_that(lambda: self.sum(processes[1:], 'singleflight_fleet_waiting{group="templates"}') == 1
                       and self.sum(processes[1:], "template_store_connections_in_use") == 1,
                       "one to take over")
        self.assertEqual({answer.status for answer in answers()}, {200})
        self.assertIsInstance(first.answers()[0], Exception)

    def test_a_store_that_fails_is_asked_by_the_next_process(self):
        processes = self.start_fleet("--max-wait-ms=60000", "--lease-ms=60000")
        with self.store_down():
            answers = self.ask_all(processes, 7, each=1)
            self.assertEqual({answer.status for answer in answers()}, {503})
        self.assertEqual(processes[0].details(7).status, 200)

    def test_when_the_cache_goes_down_meanwhile_each_process_queries_once(self):
        for go_down in (self.redis.kill, self.redis.stop):
            with self.subTest(go_down.__name__):
                processes = self.start_fleet(*self.LONG, "--redis-timeout-ms=1000")
                template = 7 if go_down == self.redis.kill else 8
                with self.queries_held():
                    answers = self.ask_all(processes, template)
                    self.await_waiting(processes, self.PROCESSES - 1)
                    go_down()
                    await_that(lambda: self.sum(processes, "template_store_connections_in_use")
                               == self.PROCESSES, "a query in each process")
                self.assertEqual({answer.status for answer in answers()}, {200})
                self.assertEqual(self.sum(processes, "template_store_queries_total"),
                                 self.PROCESSES)
                self.redis.go_on()
                self.redis.kill()
                self.redis.start()
                for process in processes:
                    await_that(lambda: process.metrics()["template_cache_up"] == 1, "the cache")
                    process.service.end()

    def test_what_redis_refuses_is_said_once_by_name(self):
        self.ask_redis("ACL", "SETUSER", "default", "-evalsha")
        client = self.start_service()
        for template in range(1, 11):
            self.assertEqual(client.details(template).status, 200)
        refused = self.events(client.service, "cache_refuses")
        self.assertEqual([event["error"] for event in refused], ["NOPERM"])
        metrics = client.metrics()
        self.assertEqual(metrics['singleflight_fleet_refused_total{group="templates"}'], 10)
        self.assertEqual(metrics["template_cache_up"], 1)

    def test_its_figures_add_up(self):
        client = self.start_service()
        for template in [*range(1, 11), *range(1, 6), 9_999]:
            client.details(template)
        metrics = client.metrics()
        self.assertEqual(metrics['singleflight_fleet_entries_total{group="templates"}'],
                         metrics[LED])
        self.assertEqual(metrics['singleflight_fleet_led_total{group="templates"}'], 11)
        self.assertEqual(metrics['singleflight_fleet_lost_fills_total{group="templates"}'], 0)


class CacheDown(WithServers):
    def setUp(self):
        super().setUp()
        self.client = self.start_service()
        self.assertEqual(self.client.details(1).status, 200)

    def serve_from_the_store(self):
        for template in range(1, 31):
            self.assertEqual(self.client.details(template).status, 200)
        self.assertEqual(len(self.events(self.client.service, "cache_down")), 1)
        self.assertEqual(self.client.metrics()["template_cache_up"], 0)

    def recover(self):
        await_that(lambda: self.client.metrics()["template_cache_up"] == 1, "the cache")
        self.assertEqual(len(self.events(self.client.service, "cache_up")), 1)
        self.client.details(TEMPLATES)
        queries = self.client.metrics()["template_store_queries_total"]
        self.assertEqual(self.client.details(TEMPLATES).status, 200)
        self.assertEqual(self.client.metrics()["template_store_queries_total"], queries)

    def test_connections_refused(self):
        self.redis.kill()
        self.serve_from_the_store()
        self.redis.start()
        self.recover()

    def test_connections_hang(self):
        self.redis.stop()
        self.serve_from_the_store()
        self.redis.go_on()
        self.recover()

    def test_it_may_be_down_from_the_start(self):
        self.redis.kill()
        self.client = self.start_service(name="service-2")
        self.serve_from_the_store()


class StoreDown(WithServers):
    def test_what_is_cached_is_served_and_the_rest_is_put_off(self):
        client = self.start_service()
        self.assertEqual(client.details(7).status, 200)
        with self.store_down():
            for _ in range(3):
                answer = client.details(8)
                self.assertEqual(answer.status, 503)
                self.assertEqual(answer.headers["Retry-After"], "1")
                self.assertEqual(answer.json, {"error": "the store cannot answer"})
            self.assertEqual(client.details(7).status, 200)
            self.assertEqual(len(self.events(client.service, "store_down")), 1)
        self.assertEqual(client.details(8).status, 200)
        self.assertEqual(len(self.events(client.service, "store_up")), 1)

    def test_a_query_that_hangs_ends_at_its_time_out(self):
        client = self.start_service("--store-timeout-s=1")
        with self.queries_held():
            self.assertEqual(client.details(7).status, 503)
        await_that(lambda: client.details(7).status == 200, "a query that takes less than a second")


class Draining(WithServers):
    def test_what_has_been_asked_is_answered_and_then_the_process_ends(self):
        client = self.start_service(*PATIENT, "--drain-ms=1")
        with self.queries_held():
            crowd = Crowd(10, lambda: client.details(7))
            await_that(lambda: client.metrics()[WAITING] == 9, "the crowd")
            client.service.process.send_signal(signal.SIGTERM)
            await_that(lambda: self.events(client.service, "draining"), "the signal to be seen")
        self.assertEqual({answer.status for answer in crowd.answers()}, {200})
        self.assertEqual(client.service.process.wait(60), 0)
        self.assertEqual(len(self.events(client.service, "stopped")), 1)

    def test_health_checks_are_told_first(self):
        client = self.start_service("--drain-ms=3600000")
        client.service.process.send_signal(signal.SIGTERM)
        await_that(lambda: client.get("/healthz").status == 503, "the signal to be seen")
        answer = client.details(7)
        self.assertEqual((answer.status, answer.headers["Connection"]), (200, "close"))
        client.service.process.kill()

    def test_under_load_no_answer_is_torn(self):
        client = self.start_service("--drain-ms=300")
        statuses, over = [], threading.Event()

        def ask():
            while not over.is_set():
                try:
                    statuses.append(client.details(7).status)
                except ConnectionError:  # the server has closed its socket
                    return
                except http.client.HTTPException as torn:
                    statuses.append(torn)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        await_that(lambda: len(statuses) > 100, "the load")
        client.service.process.send_signal(signal.SIGTERM)
        self.assertEqual(client.service.process.wait(60), 0)
        over.set()
        for thread in threads:
            thread.join()
        self.assertEqual(set(statuses), {200})


class MetricsAddUp(WithServers):
    def test_after_requests_of_every_kind(self):
        client = self.start_service()
        asked = [client.details(template).status for template in [*range(1, 11), *range(1, 6)]]
        asked += [client.details(9_999).status, client.get("/template-details?id=x").status]
        self.redis.kill()
        asked += [client.details(template).status for template in range(1, 4)]
        with self.store_down():
            asked += [client.details(4).status]
        metrics = client.metrics()
        for status in (200, 404, 400, 503):
            sample = f'template_http_requests_total{{code="{status}"}}'
            self.assertEqual(metrics[sample], asked.count(status), sample)
        self.assertEqual(metrics.sum("template_http_requests_total"), len(asked))
        self.assertEqual(metrics["template_http_request_duration_seconds_count"], len(asked))

        entries = metrics.sum("singleflight_requests_total")
        self.assertEqual(entries, asked.count(200) - metrics["template_cache_hits_total"]
                         + asked.count(404) + asked.count(503))
        self.assertEqual(metrics[LED], entries)  # one request at a time
        self.assertEqual(metrics['singleflight_calls_failed_total{group="templates"}'], asked.count(503))
        self.assertEqual(metrics["template_store_queries_total"]
                         + metrics["template_store_failures_total"], entries)
        for gauge in (IN_FLIGHT, WAITING,
                      "template_store_connections_in_use"):
            self.assertEqual(metrics[gauge], 0)


if __name__ == "__main__":
    unittest.main()
