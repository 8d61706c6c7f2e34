// What programs do with Kafka's client: create, produce with and without idempotence, read in a group by pattern, commit
// while the group rebalances, transactions. It uses what every client since 0.11 has, so that one source serves all.
//
// Run: java -cp CLASSPATH Clients.java BOOTSTRAP PREFIX

import java.lang.reflect.Method;
import java.util.*;
import java.util.concurrent.*;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.serialization.*;

public class Clients {
  static final int RECORDS = 2_000;
  static final int PARTITIONS = 4;
  static String bootstrap;
  static String prefix;

  public static void main(String[] args) throws Exception {
    bootstrap = args[0];
    prefix = args[1];
    topics();
    produce();
    pattern();
    rebalance();
    transactions();
    System.out.println("all passed");
  }

  static Properties base() {
    Properties p = new Properties();
    p.put("bootstrap.servers", bootstrap);
    return p;
  }

  static String topic(String name) {
    return prefix + "-" + name;
  }

  static void check(boolean holds, String what) {
    if (!holds) throw new AssertionError(what);
  }

  static void passed(String what) {
    System.out.println("passed: " + what);
  }

  static void topics() throws Exception {
    try (AdminClient admin = AdminClient.create(base())) {
      List<NewTopic> all = new ArrayList<>();
      for (String name : new String[] {"a", "b", "moves", "txn"}) {
        NewTopic topic = new NewTopic(topic(name), PARTITIONS, (short) 1);
        all.add(topic.configs(Collections.singletonMap("retention.ms", "3600000")));
      }
      admin.createTopics(all).all().get(30, TimeUnit.SECONDS);
    }
    try (KafkaConsumer<String, String> c = consumer("none")) {
      check(c.partitionsFor(topic("a")).size() == PARTITIONS, "partitions of a topic");
    }
    passed("topics");
  }

  static KafkaProducer<String, String> producer(String... more) {
    Properties p = base();
    p.put("acks", "all");
    for (int i = 0; i < more.length; i += 2) p.put(more[i], more[i + 1]);
    return new KafkaProducer<>(p, new StringSerializer(), new StringSerializer());
  }

  static void fill(KafkaProducer<String, String> producer, String topic) throws Exception {
    List<Future<RecordMetadata>> sent = new ArrayList<>();
    for (int n = 0; n < RECORDS; n++) {
      sent.add(producer.send(new ProducerRecord<>(topic, "key-" + n % 50, "" + n)));
    }
    Map<Integer, Long> next = new HashMap<>();
    for (Future<RecordMetadata> one : sent) {
      RecordMetadata at = one.get(60, TimeUnit.SECONDS);
      long expected = next.getOrDefault(at.partition(), 0L);
      check(at.offset() == expected, "offsets without gaps: " + at);
      next.put(at.partition(), expected + 1);
    }
  }

  static void produce() throws Exception {
    try (KafkaProducer<String, String> p = producer("compression.type", "lz4")) {
      fill(p, topic("a"));
    }
    String[] idempotent = {"enable.idempotence", "true", "compression.type", "gzip",
        "max.in.flight.requests.per.connection", "1", "retries", "10"};
    try (KafkaProducer<String, String> p = producer(idempotent)) {
      fill(p, topic("b"));
    }
    passed("produce");
  }

  static KafkaConsumer<String, String> consumer(String group, String... more) {
    Properties p = base();
    p.put("group.id", topic(group));
    p.put("auto.offset.reset", "earliest");
    p.put("enable.auto.commit", "false");
    p.put("metadata.max.age.ms", "1000");
    for (int i = 0; i < more.length; i += 2) p.put(more[i], more[i + 1]);
    return new KafkaConsumer<>(p, new StringDeserializer(), new StringDeserializer());
  }

  // Clients before 2.0 know a time in milliseconds only, clients since 4.0 a Duration only.
  static ConsumerRecords<String, String> poll(KafkaConsumer<String, String> consumer) throws Exception {
    try {
      Method poll = KafkaConsumer.class.getMethod("poll", java.time.Duration.class);
      return records(poll.invoke(consumer, java.time.Duration.ofMillis(200)));
    } catch (NoSuchMethodException e) {
      return records(KafkaConsumer.class.getMethod("poll", long.class).invoke(consumer, 200L));
    }
  }

  @SuppressWarnings("unchecked")
  static ConsumerRecords<String, String> records(Object polled) {
    return (ConsumerRecords<String, String>) polled;
  }

  static long soon() {
    return System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
  }

  static class Nothing implements ConsumerRebalanceListener {
    public void onPartitionsRevoked(Collection<TopicPartition> some) {}

    public void onPartitionsAssigned(Collection<TopicPartition> some) {}
  }

  static void pattern() throws Exception {
    Map<String, Integer> last = new HashMap<>();
    int read = 0;
    try (KafkaConsumer<String, String> c = consumer("pattern")) {
      c.subscribe(Pattern.compile(prefix + "-[ab]"), new Nothing());
      for (long until = soon(); read < 2 * RECORDS && System.nanoTime() < until; ) {
        for (ConsumerRecord<String, String> record : poll(c)) {
          Integer before = last.put(record.topic() + record.key(), Integer.parseInt(record.value()));
          check(before == null || before < Integer.parseInt(record.value()), "the order of a key");
          read++;
        }
        c.commitSync();
      }
    }
    check(read == 2 * RECORDS, "records by pattern: " + read);
    try (KafkaConsumer<String, String> c = consumer("pattern")) {
      c.subscribe(Pattern.compile(prefix + "-[ab]"), new Nothing());
      for (long until = soon(); c.assignment().size() < 2 * PARTITIONS && System.nanoTime() < until; ) {
        check(poll(c).isEmpty(), "what was committed does not come again");
      }
      for (TopicPartition at : c.assignment()) {
        check(c.position(at) == c.endOffsets(Collections.singleton(at)).get(at), "the position of " + at);
      }
    }
    passed("pattern");
  }

  // Members come and go while records are read and committed. None is lost, and what is committed is never given back.
  static void rebalance() throws Exception {
    Set<String> seen = ConcurrentHashMap.newKeySet();
    ExecutorService members = Executors.newCachedThreadPool();
    List<Future<?>> all = new ArrayList<>();
    for (int member = 0; member < 4; member++) {
      int turns = member == 3 ? Integer.MAX_VALUE : 15 * (member + 1);
      all.add(members.submit(() -> member(seen, turns)));
    }
    try (KafkaProducer<String, String> p = producer()) {
      fill(p, topic("moves"));
    }
    for (Future<?> one : all) one.get(120, TimeUnit.SECONDS);
    members.shutdown();
    check(seen.size() == RECORDS, "records under rebalances: " + seen.size());
    passed("rebalance");
  }

  static Object member(Set<String> seen, int turns) throws Exception {
    try (KafkaConsumer<String, String> c = consumer("moves", "session.timeout.ms", "6000")) {
      c.subscribe(Collections.singleton(topic("moves")));
      long until = soon();
      for (int turn = 0; turn < turns && seen.size() < RECORDS && System.nanoTime() < until; turn++) {
        for (ConsumerRecord<String, String> record : poll(c)) seen.add(record.value());
        try {
          c.commitSync();
        } catch (CommitFailedException | RetriableException e) {
          // Its partitions are another member's by now.
        }
      }
    }
    return null;
  }

  static void transactions() throws Exception {
    try (KafkaProducer<String, String> p = producer("transactional.id", topic("id"))) {
      p.initTransactions();
      for (String outcome : new String[] {"kept", "dropped", "kept"}) {
        p.beginTransaction();
        for (int n = 0; n < 100; n++) {
          p.send(new ProducerRecord<>(topic("txn"), "key-" + n, outcome));
        }
        Map<TopicPartition, OffsetAndMetadata> read =
            Collections.singletonMap(new TopicPartition(topic("a"), 0), new OffsetAndMetadata(7));
        if (outcome.equals("kept")) {
          sendOffsets(p, read);
          p.commitTransaction();
        } else {
          p.flush();
          p.abortTransaction();
        }
      }
    }
    int kept = 0;
    try (KafkaConsumer<String, String> c = consumer("reader", "isolation.level", "read_committed")) {
      c.subscribe(Collections.singleton(topic("txn")));
      for (long until = soon(); kept < 200 && System.nanoTime() < until; ) {
        for (ConsumerRecord<String, String> record : poll(c)) {
          check(record.value().equals("kept"), "an aborted record was read");
          kept++;
        }
      }
    }
    check(kept == 200, "committed records: " + kept);
    try (KafkaConsumer<String, String> c = consumer("offsets")) {
      TopicPartition at = new TopicPartition(topic("a"), 0);
      c.assign(Collections.singleton(at));
      check(c.position(at) == 7, "an offset of a transaction: " + c.position(at));
    }
    passed("transactions");
  }

  // By the name of the group until 3.x, by its metadata since 2.5.
  static void sendOffsets(KafkaProducer<String, String> p, Map<TopicPartition, OffsetAndMetadata> read)
      throws Exception {
    try {
      Class<?> metadata = Class.forName("org.apache.kafka.clients.consumer.ConsumerGroupMetadata");
      Object group = metadata.getConstructor(String.class).newInstance(topic("offsets"));
      KafkaProducer.class.getMethod("sendOffsetsToTransaction", Map.class, metadata).invoke(p, read, group);
    } catch (ClassNotFoundException e) {
      KafkaProducer.class.getMethod("sendOffsetsToTransaction", Map.class, String.class)
          .invoke(p, read, topic("offsets"));
    }
  }
}
