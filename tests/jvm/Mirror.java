// Topics with configs and records on two clusters, which MirrorMaker brings to the other one: the configs that were set
// arrive with their values, those that were not are not set, and every record arrives once.
//
// Run: java -cp CLASSPATH Mirror.java ONE OTHER TOPICS, where ONE and OTHER are NAME=BOOTSTRAP as MirrorMaker knows them.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.*;

public class Mirror {
  static final int RECORDS = 200;
  static final int PARTITIONS = 3;

  // What MirrorMaker leaves out (its config.properties.exclude).
  static final Set<String> LEFT_OUT = Set.of(
      "follower.replication.throttled.replicas", "leader.replication.throttled.replicas",
      "message.timestamp.difference.max.ms", "message.timestamp.type", "unclean.leader.election.enable",
      "min.insync.replicas", "log.message.timestamp.before.max.ms", "log.message.timestamp.after.max.ms",
      "message.timestamp.before.max.ms", "message.timestamp.after.max.ms");

  static final String[][] CONFIGS = {
    {"cleanup.policy", "compact"}, {"cleanup.policy", "compact,delete"}, {"compression.type", "zstd"},
    {"compression.type", "lz4"}, {"compression.type", "snappy"}, {"compression.type", "gzip"},
    {"compression.type", "uncompressed"}, {"compression.gzip.level", "3"}, {"compression.lz4.level", "12"},
    {"compression.zstd.level", "5"}, {"delete.retention.ms", "7200000"}, {"file.delete.delay.ms", "30000"},
    {"flush.messages", "500"}, {"flush.ms", "60000"}, {"index.interval.bytes", "8192"},
    {"local.retention.bytes", "1048576"}, {"local.retention.ms", "1000"}, {"max.compaction.lag.ms", "86400000"},
    {"max.message.bytes", "524288"}, {"min.cleanable.dirty.ratio", "0.25"}, {"min.compaction.lag.ms", "1000"},
    {"preallocate", "true"}, {"retention.bytes", "1073741824"}, {"retention.ms", "172800000"},
    {"retention.ms", "-1"}, {"segment.bytes", "16777216"}, {"segment.index.bytes", "65536"},
    {"segment.jitter.ms", "1000"}, {"segment.ms", "3600000"}, {"retention.bytes", "-1"},
  };

  record Cluster(String name, String bootstrap, Admin admin) {
    static Cluster of(String argument) {
      String[] parts = argument.split("=", 2);
      return new Cluster(parts[0], parts[1], Admin.create(Map.of("bootstrap.servers", parts[1])));
    }
  }

  public static void main(String[] args) throws Exception {
    Cluster one = Cluster.of(args[0]);
    Cluster other = Cluster.of(args[1]);
    int topics = Integer.parseInt(args[2]);
    for (Cluster cluster : List.of(one, other)) fill(cluster, topics);
    System.out.println("filled");
    int configs = arrives(one, other, topics) + arrives(other, one, topics);
    System.out.println("all passed: " + 2 * topics + " topics, " + configs + " configs");
    System.exit(0);
  }

  static String topic(Cluster cluster, int number) {
    return "of-" + cluster.name + "-" + number;
  }

  // Every config that is set is set on some topic, and no topic has one twice.
  static Map<String, String> configs(int number, int topics) {
    Map<String, String> some = new TreeMap<>();
    for (int n = number; n < CONFIGS.length; n += topics) some.put(CONFIGS[n][0], CONFIGS[n][1]);
    return some;
  }

  static void fill(Cluster cluster, int topics) throws Exception {
    List<NewTopic> all = new ArrayList<>();
    for (int n = 0; n < topics; n++) {
      NewTopic topic = new NewTopic(topic(cluster, n), PARTITIONS, (short) 1);
      all.add(topic.configs(configs(n, topics)));
    }
    cluster.admin.createTopics(all).all().get(60, TimeUnit.SECONDS);
    Map<String, Object> config = Map.of("bootstrap.servers", cluster.bootstrap, "acks", "all");
    try (KafkaProducer<String, String> p =
        new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
      // A producer that sends before every node knows a topic may be given errors that it does not repeat.
      for (int n = 0; n < topics; n++) p.send(new ProducerRecord<>(topic(cluster, n), "first", "")).get();
      List<Future<RecordMetadata>> sent = new ArrayList<>();
      for (int n = 0; n < topics * (RECORDS - 1); n++) {
        sent.add(p.send(new ProducerRecord<>(topic(cluster, n % topics), "key-" + n, "" + n)));
      }
      for (Future<RecordMetadata> one : sent) one.get(60, TimeUnit.SECONDS);
    }
  }

  static int arrives(Cluster from, Cluster to, int topics) throws Exception {
    long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(150);
    int configs = 0;
    for (int n = 0; n < topics; n++) {
      String name = topic(from, n);
      String mirrored = from.name + "." + name;
      String differs;
      while ((differs = difference(from, to, name, mirrored)) != null) {
        if (System.nanoTime() > until) throw new AssertionError(mirrored + ": " + differs);
        Thread.sleep(500);
      }
      configs += configs(n, topics).size();
    }
    return configs;
  }

  static String difference(Cluster from, Cluster to, String name, String mirrored) throws Exception {
    Map<String, String> asked = set(from, name);
    if (asked == null) return "is not there on " + from.name;
    Map<String, String> found = set(to, mirrored);
    if (found == null) return "is not there on " + to.name;
    asked.keySet().removeAll(LEFT_OUT);
    found.keySet().removeAll(LEFT_OUT);
    if (!asked.equals(found)) return "configs " + found + " instead of " + asked;
    long records = records(to, mirrored);
    return records == RECORDS ? null : records + " records instead of " + RECORDS;
  }

  // The configs that were set for a topic; null: it is not there.
  static Map<String, String> set(Cluster cluster, String topic) throws Exception {
    ConfigResource of = new ConfigResource(ConfigResource.Type.TOPIC, topic);
    try {
      Config all = cluster.admin.describeConfigs(Set.of(of)).all().get(30, TimeUnit.SECONDS).get(of);
      Map<String, String> set = new TreeMap<>();
      for (ConfigEntry entry : all.entries()) {
        if (entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG) set.put(entry.name(), entry.value());
      }
      return set;
    } catch (java.util.concurrent.ExecutionException e) {
      if (e.getCause() instanceof UnknownTopicOrPartitionException) return null;
      throw e;
    }
  }

  // The records that a reader of committed ones sees.
  static long records(Cluster cluster, String topic) {
    Map<String, Object> config = Map.of("bootstrap.servers", cluster.bootstrap, "isolation.level", "read_committed",
        "enable.auto.commit", "false", "auto.offset.reset", "earliest");
    try (KafkaConsumer<String, String> c =
        new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
      List<TopicPartition> all = new ArrayList<>();
      for (int n = 0; n < PARTITIONS; n++) all.add(new TopicPartition(topic, n));
      c.assign(all);
      Map<TopicPartition, Long> ends = c.endOffsets(all);
      c.seekToBeginning(all);
      Set<String> seen = new HashSet<>();
      long count = 0;
      while (all.stream().anyMatch(at -> c.position(at) < ends.get(at))) {
        for (ConsumerRecord<String, String> record : c.poll(Duration.ofMillis(100))) {
          if (!seen.add(record.key())) throw new AssertionError(topic + ": a record came twice: " + record);
          count++;
        }
      }
      return count;
    }
  }
}
